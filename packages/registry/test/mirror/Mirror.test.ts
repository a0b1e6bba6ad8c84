import { assert, describe, it } from "@effect/vitest"
import { IngestState } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { Outcome } from "@spegel-ts/registry/Outcome"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { type MemoryNetwork, Router } from "@spegel-ts/router/Router"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Duration, Effect } from "effect"
import type { FileHandle } from "node:fs/promises"
import { request } from "node:http"
import type { Socket } from "node:net"
import { recordedOf, untilRecorded } from "../Recorded.ts"
import { startNode } from "../TestNode.ts"
import { begun, error, get, honest, ns, response, startFalsePeer } from "./FalsePeer.ts"

const small = Buffer.from("a small layer ".repeat(100))
const smallDigest = Digest.ofBytes(small)
/** Larger than what is verified before it is answered. Every chunk is different, so that none can stand for another. */
const large = Buffer.from(Uint32Array.from({ length: 1_600_000 }, (_, index) => index).buffer)
const largeDigest = Digest.ofBytes(large)
const manifestOf = (name: string) =>
  Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.imageIndex, manifests: [], name }))
/** A download of containerd that has just begun. */
const ingestOf = (digest: Digest.Digest, size: number) => ({
  namespace: "k8s.io",
  ref: `layer-${digest}`,
  digest,
  path: "/nowhere",
  size,
  written: 0
})
const tag = `${ns}/team/app:v1`

const blobUrl = (url: string, digest: string) => `${url}/v2/team/app/blobs/${digest}?ns=${ns}`
const tagUrl = (url: string) => `${url}/v2/team/app/manifests/v1?ns=${ns}`

const startHolder = Effect.fnUntraced(function*(
  network: MemoryNetwork,
  address: string,
  ...blobs: ReadonlyArray<Buffer>
) {
  const node = yield* startNode(network, address)
  const digests = yield* Effect.forEach(blobs, node.content.put)
  yield* node.router.advertise(digests.map((digest) => ContentKey.make(digest)))
  return node
})

describe("Mirror", () => {
  it.live("leaves a busy peer at once, and does not ask it again before it wants to be asked", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2", small, large)
      const busy = yield* startFalsePeer(
        network,
        "127.0.0.4",
        (socket) => socket.write(response(503, "{}", "retry-after: 30")),
        smallDigest,
        largeDigest
      )
      const node = yield* startNode(network, "127.0.0.3")
      for (const [digest, bytes] of [[smallDigest, small], [largeDigest, large]] as const) {
        assert.isTrue((yield* get(blobUrl(node.url, digest))).body.equals(bytes))
      }
      assert.strictEqual(busy.requests.length, 1)
      const [event] = yield* untilRecorded(node.log, 2)
      assert.deepStrictEqual(event?.attempts[0]?.outcome, Outcome.Deferred({ reason: "said that it is busy" }))
    }))

  it.live("serves bounded and suffix ranges, and goes on inside them with another peer", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2", small, large)
      const cutting = (socket: Socket, asked: string) => {
        const [, first, last] = /^range: bytes=(\d*)-(\d*)/im.exec(asked) ?? []
        const start = first === "" ? large.length - Number(last) : Number(first)
        const end = first === "" || last === "" ? large.length : Number(last) + 1
        socket.end(
          response(206, large.subarray(start, end), `content-range: bytes ${start}-${end - 1}/${large.length}`)
            .subarray(0, 600_000)
        )
      }
      const cut = yield* startFalsePeer(network, "127.0.0.4", cutting, largeDigest)
      for (const [digest, whole] of [[smallDigest, small], [largeDigest, large]] as const) {
        for (
          const [range, start, end] of [
            ["bytes=0-999", 0, 1000],
            [`bytes=3-${whole.length - 2}`, 3, whole.length - 1],
            [`bytes=0-${whole.length - 2}`, 0, whole.length - 1],
            [`bytes=7-${whole.length + 5}`, 7, whole.length],
            [`bytes=-${whole.length - 1}`, 1, whole.length],
            ["bytes=5-", 5, whole.length]
          ] as const
        ) {
          const before = cut.requests.length
          const { url } = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.seconds(30) })
          const { body, headers, status } = yield* get(blobUrl(url, digest), { headers: { range } })
          assert.strictEqual(cut.requests.length - before, whole === large ? 1 : 0, range)
          assert.strictEqual(status, 206, range)
          assert.strictEqual(headers.get("content-range"), `bytes ${start}-${end - 1}/${whole.length}`)
          assert.isTrue(body.equals(whole.subarray(start, end)), range)
        }
      }
    }))

  it.live("asks the next peer for the rest of the range, and for no byte more", () =>
    Effect.gen(function*() {
      for (const [range, last] of [["bytes=3-5000002", 5_000_002], ["bytes=3-", large.length - 1]] as const) {
        const network = Router.memoryNetwork()
        const ranged = (bytes: number) => (socket: Socket, asked: string) => {
          const [, first = "", end = ""] = /^range: bytes=(\d+)-(\d*)\r$/im.exec(asked) ?? []
          const part = large.subarray(Number(first), end === "" ? large.length : Number(end) + 1)
          const answer = response(
            206,
            part,
            `content-range: bytes ${first}-${Number(first) + part.length - 1}/${large.length}`
          )
          if (part.length > bytes) socket.end(answer.subarray(0, answer.length - part.length + bytes))
          else socket.write(answer)
        }
        const whole = yield* startFalsePeer(network, "127.0.0.5", ranged(Infinity), largeDigest)
        const cutting = yield* startFalsePeer(network, "127.0.0.4", ranged(600_000), largeDigest)
        const { url } = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.seconds(30) })
        const { body } = yield* get(blobUrl(url, largeDigest), { headers: { range } })
        assert.isTrue(body.equals(large.subarray(3, last + 1)))
        assert.strictEqual(cutting.requests.length, 1)
        const [asked = ""] = whole.requests
        assert.match(asked, new RegExp(`^range: bytes=600003-${last === large.length - 1 ? "" : last}\r$`, "im"))
      }
    }))

  it.live("answers the whole to invalid ranges, 416 only where it knows the size, and 404 otherwise", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2", small, large)
      const { url } = yield* startNode(network, "127.0.0.3")
      const at = (digest: string, range: string) => get(blobUrl(url, digest), { headers: { range } })
      for (const digest of [smallDigest, largeDigest]) {
        for (const range of ["bytes=0-", "bytes=0-1,3-4", "bytes=5-2", "items=1-2"]) {
          assert.strictEqual((yield* at(digest, range)).status, 200, range)
        }
      }
      const beyond = yield* at(smallDigest, `bytes=${small.length}-`)
      assert.strictEqual(beyond.status, 416)
      assert.strictEqual(beyond.headers.get("content-range"), `bytes */${small.length}`)
      assert.strictEqual((yield* at(largeDigest, `bytes=${large.length}-`)).status, 404)
    }))

  it.live("takes a layer only in the size that containerd expects", () =>
    Effect.gen(function*() {
      const expected = ingestOf(largeDigest, large.length)
      for (const wrong of [large.subarray(0, 5_000_000), Buffer.concat([large, large])]) {
        const network = Router.memoryNetwork()
        yield* startHolder(network, "127.0.0.2", large)
        const peer = yield* startFalsePeer(
          network,
          "127.0.0.4",
          (socket, asked) => socket.write(honest(wrong, asked)),
          largeDigest
        )
        for (const start of [0, 5]) {
          const { url } = yield* startNode(network, "127.0.0.3", { ingests: [expected] })
          const { body } = yield* get(blobUrl(url, largeDigest), { headers: { range: `bytes=${start}-` } })
          assert.isTrue(body.equals(large.subarray(start)))
        }
        assert.strictEqual(peer.requests.length, 2)
      }
    }))

  it.live("looks for downloads only where there is a peer to ask", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2", small)
      let looks = 0
      const ingests = {
        *[Symbol.iterator]() {
          looks++
          yield ingestOf(smallDigest, small.length)
        }
      }
      const { url } = yield* startNode(network, "127.0.0.3", { ingests })
      const atStart = looks
      assert.strictEqual((yield* get(blobUrl(url, largeDigest))).status, 404)
      assert.strictEqual(looks, atStart)
      assert.strictEqual((yield* get(blobUrl(url, smallDigest))).status, 200)
      assert.strictEqual(looks, atStart + 1)
    }))

  it.live("excludes a peer whose bytes containerd did not commit, and tells it", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const wrong = Buffer.alloc(large.length, "x")
      const liar = yield* startFalsePeer(
        network,
        "127.0.0.4",
        (socket, asked) => socket.write(honest(wrong, asked)),
        largeDigest
      )
      let state: IngestState = IngestState.InProgress({ written: 0, modified: 0 })
      const ingests = [ingestOf(largeDigest, large.length)]
      const node = yield* startNode(network, "127.0.0.3", {
        verify: "commit",
        ingests,
        openIngest: () =>
          Effect.succeed({
            handle: { fd: -1 } as FileHandle,
            state: Effect.sync(() => state),
            chunks: (start: number) => chunksOf(wrong.subarray(start))
          })
      })
      const pull = get(blobUrl(node.url, largeDigest), { headers: { "user-agent": "containerd/2.1.9" } })
      // All of it is passed on: what is wrong with it is for containerd to find.
      assert.isTrue((yield* pull).body.equals(wrong))
      ingests.length = 0
      state = IngestState.Deleted({ written: large.length })
      // The next pull begins before it is hashed, or after.
      const refused = yield* pull
      assert.strictEqual(refused.status, 404)
      assert.strictEqual(liar.requests.filter((request) => request.startsWith("GET")).length, 1)
      yield* eventually(() => liar.requests.some((request) => /^HEAD .*x-spegel-suspect: true/is.test(request)))
      yield* startHolder(network, "127.0.0.2", large)
      assert.isTrue((yield* pull).body.equals(large))
    }))

  it.live("takes no other range than it asked for", () =>
    Effect.gen(function*() {
      for (
        const answer of [
          response(200, large),
          response(206, large.subarray(4)),
          response(206, large.subarray(4), `content-range: bytes 4-${large.length - 1}/${large.length}`),
          response(206, large.subarray(5, 100), `content-range: bytes 5-99/${large.length}`),
          response(206, large.subarray(5), `content-range: bytes 5-${large.length}/${large.length + 1}`),
          response(206, large.subarray(6), `content-range: bytes 5-${large.length - 1}/${large.length}`)
        ]
      ) {
        const network = Router.memoryNetwork()
        yield* startHolder(network, "127.0.0.2", large)
        const peer = yield* startFalsePeer(network, "127.0.0.4", (socket) => socket.write(answer), largeDigest)
        const { url } = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.seconds(30) })
        const { body } = yield* get(blobUrl(url, largeDigest), { headers: { range: "bytes=5-" } })
        assert.isTrue(body.equals(large.subarray(5)))
        // A peer that ignores the range is asked for the whole, which is taken where it is small.
        assert.strictEqual(peer.requests.length, answer.includes("HTTP/1.1 200") ? 2 : 1)
      }
    }))

  it.live("goes on with peer after peer, beyond its retries, as long as each gives enough", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2", large)
      for (let index = 0; index < 5; index++) {
        yield* startFalsePeer(
          network,
          `127.0.0.${index + 4}`,
          (socket, asked) => socket.end(begun(large, asked, 1_100_000)),
          largeDigest
        )
      }
      const node = yield* startNode(network, "127.0.0.3", { resolveRetries: 2 })
      assert.isTrue((yield* get(blobUrl(node.url, largeDigest))).body.equals(large))
      const { attempts, bytes, firstByteMillis, millis, peersSeen, source, status } = yield* recordedOf(
        node.log,
        largeDigest
      )
      assert.deepStrictEqual([status, bytes, peersSeen], [200, large.length, 6])
      assert.isAtMost(firstByteMillis, millis)
      // The first lookup names four. Each peer begins where the one before it ended.
      const served = attempts.filter((attempt) => attempt.bytes > 0)
      assert.isAtLeast(served.length, 5)
      assert.deepStrictEqual(
        served.map(({ start }) => start),
        served.map((_, turn) => served.slice(0, turn).reduce((sum, attempt) => sum + attempt.bytes, 0))
      )
      assert.strictEqual(served.reduce((sum, attempt) => sum + attempt.bytes, 0), large.length)
      assert.strictEqual(source, served.at(-1)?.peer)
      assert.strictEqual(served.at(-1)?.outcome._tag, "Served")
    }))

  it.live("answers a manifest with the type that the peer keeps, where the bytes allow it", () =>
    Effect.gen(function*() {
      const { dockerManifestList, imageIndex, imageManifest } = MediaType
      const typed = manifestOf("typed")
      const untyped = Buffer.from("\n{\"manifests\": [], \"mediaType\": \"\"}")
      const strange = Buffer.from("{\"manifests\": [], \"mediaType\": \"a/b\"}")
      const layer = Buffer.from("a layer")
      for (
        const [manifest, said, expected] of [
          [typed, "application/octet-stream", imageIndex],
          [typed, imageManifest, imageIndex],
          [typed, undefined, imageIndex],
          [untyped, "application/octet-stream", imageIndex],
          [untyped, `${dockerManifestList}; charset=utf-8`, dockerManifestList],
          [strange, dockerManifestList, dockerManifestList],
          [strange, "application/octet-stream", undefined],
          [strange, imageManifest, undefined],
          [layer, imageManifest, undefined],
          [layer, "application/octet-stream", undefined]
        ] as const
      ) {
        const network = Router.memoryNetwork()
        const digest = Digest.ofBytes(manifest)
        const answer = response(200, manifest, said === undefined ? "x: y" : `content-type: ${said}`)
        yield* startFalsePeer(network, "127.0.0.4", (socket) => socket.write(answer), digest)
        const { url } = yield* startNode(network, "127.0.0.3")
        for (const method of ["HEAD", "GET"]) {
          const { headers, status } = yield* get(`${url}/v2/team/app/manifests/${digest}?ns=${ns}`, { method })
          const title = `${method} of ${manifest.toString()} as ${said}`
          assert.strictEqual(status, expected === undefined ? 404 : 200, title)
          if (expected !== undefined) assert.strictEqual(headers.get("content-type"), expected, title)
        }
      }
    }))

  it.live("answers HEAD of a tag with 200 only if the bytes can be had", () =>
    Effect.gen(function*() {
      const manifest = manifestOf("promised")
      const lie = Buffer.from(manifest)
      lie[20] = 0
      const digest = `docker-content-digest: ${Digest.ofBytes(manifest)}`
      for (
        const answer of [
          response(200, lie, `content-type: ${MediaType.imageIndex}`, digest),
          response(200, manifest, `content-type: ${MediaType.imageIndex}`),
          response(
            200,
            "text",
            "content-type: text/plain",
            `docker-content-digest: ${Digest.ofBytes(Buffer.from("text"))}`
          ),
          Buffer.from(`HTTP/1.1 200 OK\r\ncontent-length: ${MediaType.maxManifestSize + 1}\r\n${digest}\r\n\r\n{`)
        ]
      ) {
        const network = Router.memoryNetwork()
        const peer = yield* startFalsePeer(network, "127.0.0.4", (socket) => socket.write(answer), tag)
        const { url } = yield* startNode(network, "127.0.0.3")
        assert.strictEqual((yield* get(tagUrl(url), { method: "HEAD" })).status, 404)
        assert.match(peer.requests[0] ?? "", /^GET /)
      }
    }))

  it.live("answers a HEAD or a manifest within the answer timeout", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const peer = yield* startFalsePeer(network, "127.0.0.4", () => {}, tag, smallDigest)
      const { url } = yield* startNode(network, "127.0.0.3", {
        firstByteTimeout: Duration.seconds(30),
        answerTimeout: Duration.millis(200)
      })
      const manifest = yield* get(tagUrl(url))
      assert.strictEqual(manifest.status, 404)
      assert.include(error(manifest.body).message, `no peer gave ${tag} within 200 ms`)
      assert.strictEqual((yield* get(tagUrl(url), { method: "HEAD" })).status, 404)
      assert.strictEqual((yield* get(blobUrl(url, smallDigest), { method: "HEAD" })).status, 404)
      assert.strictEqual(peer.requests.length, 3)
    }))

  it.live("does not follow redirects", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2", small)
      const elsewhere = yield* startFalsePeer(
        network,
        "127.0.0.5",
        (socket, asked) => socket.write(honest(small, asked))
      )
      const { servicePort = 0 } = network.members.get(elsewhere.id) ?? {}
      const redirecting = yield* startFalsePeer(
        network,
        "127.0.0.4",
        (socket) => socket.write(response(307, "", `location: http://127.0.0.5:${servicePort}/`)),
        smallDigest
      )
      const { url } = yield* startNode(network, "127.0.0.3")
      assert.isTrue((yield* get(blobUrl(url, smallDigest))).body.equals(small))
      assert.strictEqual(redirecting.requests.length, 1)
      assert.deepStrictEqual(elsewhere.requests, [])
    }))

  /** Writes for ever, as long as anybody reads. */
  const endless = (head: string, more: string) => (socket: Socket) => {
    const pour = () => {
      while (!socket.destroyed && socket.write(more.repeat(100)));
      if (!socket.destroyed) socket.once("drain", pour)
    }
    socket.write(head)
    pour()
  }
  const hostile: ReadonlyArray<readonly [string, (socket: Socket) => void]> = [
    ["sends headers without end", endless("HTTP/1.1 200 OK\r\n", "x-bomb: boom\r\n")],
    ["sends one header without end", endless("HTTP/1.1 200 OK\r\nx: ", "y")],
    ["sends interim answers without end", endless("", "HTTP/1.1 103 Early Hints\r\n\r\n")],
    ["sends chunks without end", endless("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "5\r\nbytes\r\n")],
    [
      "sends lengths and chunks at once",
      (socket) => socket.write(response(200, small, "transfer-encoding: chunked"))
    ],
    ["sends a coded body", (socket) => socket.write(response(200, small, "content-encoding: gzip"))],
    ["answers a refusal without end", endless(`HTTP/1.1 404 X\r\ncontent-length: ${2 ** 40}\r\n\r\n`, "bytes")]
  ]
  for (const [title, behave] of hostile) {
    it.live(`a peer that ${title} is left, with its connection`, () =>
      Effect.gen(function*() {
        const network = Router.memoryNetwork()
        yield* startHolder(network, "127.0.0.2", small)
        const peer = yield* startFalsePeer(network, "127.0.0.4", behave, smallDigest)
        const { url } = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.seconds(30) })
        const { body, status } = yield* get(blobUrl(url, smallDigest))
        assert.strictEqual(status, 200)
        assert.isTrue(body.equals(small))
        assert.strictEqual(peer.requests.length, 1)
        yield* eventually(() => peer.sockets.size === 0)
      }))
  }

  it.live("does not open the circuit because nobody has some content", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2", small)
      const lacking = yield* startFalsePeer(
        network,
        "127.0.0.4",
        (socket) => socket.write(response(404, "{}")),
        ...Array.from({ length: 5 }, (_, index) => Digest.ofBytes(Buffer.from(`lacking ${index}`)))
      )
      const { url } = yield* startNode(network, "127.0.0.3", { circuitFailures: 1 })
      for (let index = 0; index < 5; index++) {
        yield* get(blobUrl(url, Digest.ofBytes(Buffer.from(`absent ${index}`))))
        yield* get(blobUrl(url, Digest.ofBytes(Buffer.from(`lacking ${index}`))))
      }
      assert.strictEqual(lacking.requests.length, 5)
      assert.strictEqual((yield* get(blobUrl(url, smallDigest))).status, 200)
    }))

  it.live("releases the memory for verification, and relays blobs that it has no memory for", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2", small)
      const lie = (socket: Socket) => socket.write(response(200, Buffer.alloc(small.length, "x")))
      const node = yield* startNode(network, "127.0.0.3", { verifyMemory: 2 * small.length })
      for (let turn = 0; turn < 5; turn++) {
        assert.isTrue((yield* get(blobUrl(node.url, smallDigest))).body.equals(small))
      }
      // Held while it is verified: the next peer's bytes are answered instead.
      const liar = yield* startFalsePeer(network, "127.0.0.4", lie, smallDigest)
      assert.isTrue((yield* get(blobUrl(node.url, smallDigest))).body.equals(small))
      assert.match(liar.requests[0] ?? "", /^GET /)

      const without = yield* startNode(network, "127.0.0.5", { verify: "stream", verifyMemory: small.length })
      const cut = yield* Effect.exit(Effect.tryPromise(() => fetch(blobUrl(without.url, smallDigest))))
      assert.strictEqual(cut._tag, "Failure")
      // The liar is known now.
      assert.isTrue((yield* get(blobUrl(without.url, smallDigest))).body.equals(small))
    }))

  it.live("records a client that goes away", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const peer = yield* startFalsePeer(
        network,
        "127.0.0.4",
        (socket, asked) => socket.write(begun(large, asked, 1_000_000)),
        largeDigest
      )
      const node = yield* startNode(network, "127.0.0.3", { stallTimeout: Duration.seconds(30) })
      yield* Effect.callback<void>((resume) => {
        request(blobUrl(node.url, largeDigest), (incoming) =>
          incoming.once("data", () => {
            incoming.destroy()
            resume(Effect.void)
          })).on("error", () => {}).end()
      })
      const event = yield* recordedOf(node.log, largeDigest)
      assert.deepStrictEqual([event.status, event.attempts[0]?.outcome._tag], [0, "ClientGone"])
      assert.isAbove(event.attempts[0]?.bytes ?? 0, 0)
      yield* eventually(() => peer.sockets.size === 0)
    }))
})

async function* chunksOf(bytes: Buffer) {
  yield bytes
}
