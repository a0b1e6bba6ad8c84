import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Reference from "@spegel-ts/oci/Reference"
import type { PullEvent } from "@spegel-ts/registry/PullLog"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { type MemoryNetwork, Router } from "@spegel-ts/router/Router"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Duration, Effect, Option, Redacted, References, Result, Schedule } from "effect"
import { rm, writeFile } from "node:fs/promises"
import { connect, type Socket } from "node:net"
import * as FileNode from "../FileNode.ts"
import { begun, error, get, ns, response, startFalsePeer } from "../mirror/FalsePeer.ts"
import * as RawClient from "../RawClient.ts"
import { untilRecorded } from "../Recorded.ts"
import { startNode } from "../TestNode.ts"

const reference = Result.getOrThrow(Reference.parse(`${ns}/team/app:v1`))
const blob = Buffer.from("a small layer ".repeat(100))
const blobDigest = Digest.ofBytes(blob)
/** Larger than what is verified before it is answered. */
const large = Buffer.alloc(6 * 1024 * 1024, "spegel")
const largeDigest = Digest.ofBytes(large)
const manifest = Buffer.from(JSON.stringify({
  schemaVersion: 2,
  mediaType: MediaType.imageManifest,
  config: { mediaType: MediaType.imageConfig, digest: blobDigest, size: blob.length },
  layers: []
}))
const manifestDigest = Digest.ofBytes(manifest)

const toldBy = (headers: Headers) => Object.fromEntries([...headers].filter(([name]) => name !== "date"))

/** A node that holds everything and has advertised it. */
const startHolder = Effect.fnUntraced(function*(network: MemoryNetwork, address: string) {
  const node = yield* startNode(network, address)
  yield* Effect.forEach([blob, large, manifest], node.content.put)
  yield* node.content.tag(reference, manifestDigest)
  yield* node.router.advertise(
    [blobDigest, largeDigest, manifestDigest, Reference.name(reference)].map(ContentKey.make)
  )
  return node
})

describe("Registry, own content", () => {
  const withHolder = Effect.suspend(() => startHolder(Router.memoryNetwork(), "127.0.0.2"))

  it.live("is not ready once it is retired, and still serves", () =>
    Effect.gen(function*() {
      const { retire, url } = yield* withHolder
      const statuses = Effect.forEach(
        ["/readyz", "/livez", `/v2/team/app/manifests/v1?ns=${ns}`],
        (path) => Effect.map(get(url + path), ({ status }) => status)
      )
      assert.deepStrictEqual(yield* statuses, [200, 200, 200])
      yield* retire
      assert.deepStrictEqual(yield* statuses, [503, 200, 200])
    }))

  it.live("answers manifests and blobs with their type, length and digest; HEAD as GET", () =>
    Effect.gen(function*() {
      const { url } = yield* withHolder
      for (
        const [path, bytes, mediaType, digest] of [
          [`/v2/team/app/manifests/v1?ns=${ns}`, manifest, MediaType.imageManifest, manifestDigest],
          [`/v2/team/app/manifests/${manifestDigest}?ns=${ns}`, manifest, MediaType.imageManifest, manifestDigest],
          [`/v2/team/app/blobs/${blobDigest}?ns=${ns}`, blob, MediaType.octetStream, blobDigest]
        ] as const
      ) {
        const full = yield* get(url + path)
        const head = yield* get(url + path, { method: "HEAD" })
        assert.deepStrictEqual([full.status, head.status], [200, 200])
        assert.isTrue(full.body.equals(bytes))
        assert.strictEqual(head.body.length, 0)
        for (const { headers } of [full, head]) {
          assert.strictEqual(headers.get("content-type"), mediaType)
          assert.strictEqual(headers.get("content-length"), String(bytes.length))
          assert.strictEqual(headers.get("docker-content-digest"), digest)
        }
      }
    }))

  it.live("serves single, open-ended and suffix ranges, and 416 beyond the end", () =>
    Effect.gen(function*() {
      const { url } = yield* withHolder
      const ranged = (range: string) => get(`${url}/v2/team/app/blobs/${blobDigest}?ns=${ns}`, { headers: { range } })
      for (
        const [range, start, end] of [
          ["bytes=0-", 0, blob.length],
          ["bytes=10-19", 10, 20],
          ["bytes=1000-", 1000, blob.length],
          ["bytes=-5", blob.length - 5, blob.length]
        ] as const
      ) {
        const { body, headers, status } = yield* ranged(range)
        assert.strictEqual(status, 206)
        assert.strictEqual(headers.get("content-range"), `bytes ${start}-${end - 1}/${blob.length}`)
        assert.isTrue(body.equals(blob.subarray(start, end)))
      }
      const beyond = yield* ranged(`bytes=${blob.length}-`)
      assert.strictEqual(beyond.status, 416)
      assert.strictEqual(beyond.headers.get("content-range"), `bytes */${blob.length}`)
      assert.strictEqual(error(beyond.body).code, "RANGE_INVALID")
    }))

  it.live("serves digests without ?ns=, and tags whose registry is clear", () =>
    Effect.gen(function*() {
      const { content, url } = yield* withHolder
      assert.strictEqual((yield* get(`${url}/v2/any/name/manifests/${manifestDigest}`)).status, 200)
      assert.strictEqual((yield* get(`${url}/v2/team/app/manifests/v1`)).status, 200)
      assert.strictEqual((yield* get(`${url}/v2/${ns}/team/app/manifests/v1`)).status, 200)
      assert.deepStrictEqual(JSON.parse(String((yield* get(`${url}/v2/team/app/tags/list`)).body)), {
        name: "team/app",
        tags: ["v1"]
      })

      yield* content.tag({ registry: "other.example", repository: "team/app", tag: "v1" }, manifestDigest)
      const ambiguous = yield* get(`${url}/v2/team/app/manifests/v1`)
      assert.strictEqual(ambiguous.status, 404)
      assert.include(error(ambiguous.body).message, "other.example and registry.example")
      assert.strictEqual((yield* get(`${url}/v2/team/app/tags/list`)).status, 404)
      assert.strictEqual((yield* get(`${url}/v2/team/app/tags/list?ns=${ns}`)).status, 200)
    }))

  it.live("lists tags in pages", () =>
    Effect.gen(function*() {
      const { content, url } = yield* withHolder
      yield* Effect.forEach(["v2", "v3"], (tag) => content.tag({ ...reference, tag }, manifestDigest))
      const first = yield* get(`${url}/v2/team/app/tags/list?ns=${ns}&n=2`)
      assert.deepStrictEqual(JSON.parse(String(first.body)).tags, ["v1", "v2"])
      const next = /<(.+)>; rel="next"/.exec(first.headers.get("link") ?? "")?.[1]
      const second = yield* get(url + next)
      assert.deepStrictEqual(JSON.parse(String(second.body)).tags, ["v3"])
      assert.isNull(second.headers.get("link"))
    }))

  it.live("asks for credentials only where they are configured", () =>
    Effect.gen(function*() {
      const { url } = yield* startNode(Router.memoryNetwork(), "127.0.0.2", {
        basicAuth: Option.some({ username: "user", password: Redacted.make("secret") })
      })
      const without = yield* get(`${url}/v2/`)
      assert.strictEqual(without.status, 401)
      assert.match(without.headers.get("www-authenticate") ?? "", /^Basic /)
      const basic = (text: string) => ({ headers: { authorization: `Basic ${Buffer.from(text).toString("base64")}` } })
      assert.strictEqual((yield* get(`${url}/v2/`, basic("user:wrong"))).status, 401)
      assert.strictEqual((yield* get(`${url}/v2/`, basic("user:secret"))).status, 200)
      assert.strictEqual((yield* get(`${url}/livez`)).status, 200)
    }))

  // Traced or not: what is asked for again is answered in two ways.
  for (const traced of [true, false]) {
    it.live(`answers what is asked for again as the first time, and tells of each; traced: ${traced}`, () =>
      Effect.gen(function*() {
        const { address, blobs, log, port } = yield* FileNode.start(
          Router.memoryNetwork(),
          "127.0.0.34",
          [1000, 2000],
          { basicAuth: Option.some({ username: "user", password: Redacted.make("secret") }) }
        )
        const ask = (path: string, headers: Record<string, string> = {}, method = "GET") =>
          get(`http://${address}:${port}${path}`, {
            method,
            headers: { authorization: `Basic ${Buffer.from("user:secret").toString("base64")}`, ...headers }
          })
        const [one, other] = blobs
        if (one === undefined || other === undefined) return assert.fail("no blobs")
        const answers = yield* Effect.forEach([1, 2, 3, 4], () => ask(one.path))
        for (const { body, headers, status } of answers) {
          assert.strictEqual(status, 200)
          assert.isTrue(body.equals(one.bytes))
          const told = toldBy(headers)
          assert.deepInclude(told, {
            "accept-ranges": "bytes",
            "content-type": "application/octet-stream",
            "content-length": "1000",
            "docker-content-digest": one.digest,
            "docker-distribution-api-version": "registry/2.0"
          })
          assert.deepStrictEqual(told, toldBy(answers[0]?.headers ?? new Headers()))
        }
        const events = yield* untilRecorded(log, answers.length)
        const same = ({ content, method, registry, source, status }: PullEvent) => ({
          content,
          method,
          registry,
          source,
          status
        })
        assert.deepStrictEqual(
          events.map(same),
          Array.from({ length: 4 }, () => ({
            content: one.digest,
            method: "GET",
            registry: ns,
            source: "local",
            status: 200
          }))
        )

        const part = yield* ask(one.path, { range: "bytes=10-19" })
        assert.deepStrictEqual([part.status, part.body], [206, one.bytes.subarray(10, 20)])
        assert.strictEqual((yield* ask(one.path, {}, "HEAD")).body.length, 0)
        assert.strictEqual((yield* ask(one.path, { "x-spegel-mirrored": "true" })).status, 200)
        assert.strictEqual((yield* ask(one.path, { authorization: "Basic none" })).status, 404)
        assert.isTrue((yield* ask(other.path)).body.equals(other.bytes))

        yield* Effect.promise(() => rm(one.file))
        // However often it is asked for meanwhile.
        yield* eventually(Effect.map(ask(one.path), ({ status }) => status === 404))
      }).pipe(Effect.provideService(References.TracerEnabled, traced)))
  }
})

describe("Registry, damaged content", () => {
  it.live("goes to no peer once one has complained, but still to this node's containerd", () =>
    Effect.gen(function*() {
      const { address, blobs, port } = yield* FileNode.start(Router.memoryNetwork(), "127.0.0.34", [100_000, 1000])
      for (const blob of blobs) {
        const ask = (headers: Record<string, string>, method = "GET") =>
          get(`http://${address}:${port}${blob.path}`, { method, headers })
        const asPeer = { "x-spegel-mirrored": "true" }
        assert.isTrue((yield* ask(asPeer)).body.equals(blob.bytes))
        yield* Effect.promise(() => writeFile(blob.file, Buffer.alloc(blob.bytes.length, "x")))
        // Nobody knows yet.
        assert.strictEqual((yield* ask(asPeer)).status, 200)
        yield* ask({ ...asPeer, "x-spegel-suspect": "true" }, "HEAD")
        const refused = yield* ask(asPeer).pipe(
          Effect.repeat({ until: ({ status }) => status !== 200, schedule: Schedule.spaced("10 millis"), times: 500 })
        )
        assert.strictEqual(refused.status, 404)
        assert.include(error(refused.body).message, "is damaged")
        assert.strictEqual((yield* ask(asPeer, "HEAD")).status, 404)
        assert.strictEqual((yield* ask({})).status, 200)
      }
    }))
})

describe("Registry, content of peers", () => {
  it.live("relays manifests, tags, small and large blobs, and records it in the log", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2")
      const { log, url } = yield* startNode(network, "127.0.0.3")
      for (
        const [path, bytes] of [
          ["manifests/v1", manifest],
          [`manifests/${manifestDigest}`, manifest],
          [`blobs/${blobDigest}`, blob],
          [`blobs/${largeDigest}`, large]
        ] as const
      ) {
        const { body, headers, status } = yield* get(`${url}/v2/team/app/${path}?ns=${ns}`)
        assert.strictEqual(status, 200, path)
        assert.isTrue(body.equals(bytes), path)
        assert.strictEqual(headers.get("docker-content-digest"), Digest.ofBytes(bytes))
      }
      const head = yield* get(`${url}/v2/team/app/manifests/v1?ns=${ns}`, { method: "HEAD" })
      assert.strictEqual(head.headers.get("content-length"), String(manifest.length))
      assert.strictEqual(head.headers.get("content-type"), MediaType.imageManifest)
      const events = yield* untilRecorded(log, 5)
      assert.deepStrictEqual(new Set(events.map(({ source }) => source)), new Set(["node-127.0.0.2"]))
      assert.strictEqual(events.length, 5)
    }))

  it.live("answers 200 to bytes=0- and 206 to a client that resumes", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2")
      const { url } = yield* startNode(network, "127.0.0.3")
      for (const [digest, bytes] of [[blobDigest, blob], [largeDigest, large]] as const) {
        const at = (range: string) => get(`${url}/v2/team/app/blobs/${digest}?ns=${ns}`, { headers: { range } })
        assert.strictEqual((yield* at("bytes=0-")).status, 200)
        const resumed = yield* at("bytes=100-")
        assert.strictEqual(resumed.status, 206)
        assert.strictEqual(resumed.headers.get("content-range"), `bytes 100-${bytes.length - 1}/${bytes.length}`)
        assert.isTrue(resumed.body.equals(bytes.subarray(100)))
      }
    }))

  it.live("answers 404 with a reason when no peer has it, a peer asks, or it is filtered", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2")
      const { url } = yield* startNode(network, "127.0.0.3", { filter: ({ tag }) => tag !== "latest" })
      const absent = Digest.ofBytes(Buffer.from("absent"))
      const nobody = yield* get(`${url}/v2/team/app/blobs/${absent}?ns=${ns}`)
      assert.strictEqual(nobody.status, 404)
      assert.strictEqual(error(nobody.body).code, "BLOB_UNKNOWN")
      assert.strictEqual(nobody.headers.get("content-type"), "application/json")
      // By this clients know a registry from a web page.
      for (const answer of [nobody, yield* get(`${url}/v2/`)]) {
        assert.strictEqual(answer.headers.get("docker-distribution-api-version"), "registry/2.0")
      }
      assert.include(error(nobody.body).message, `no peer has ${absent}; containerd continues with the upstream`)

      const mirrored = yield* get(`${url}/v2/team/app/blobs/${blobDigest}?ns=${ns}`, {
        headers: { "x-spegel-mirrored": "true" }
      })
      assert.strictEqual(mirrored.status, 404)
      assert.strictEqual((yield* get(`${url}/v2/team/app/blobs/${blobDigest}`)).status, 404)
      const filtered = yield* get(`${url}/v2/team/app/manifests/latest?ns=${ns}`)
      assert.include(error(filtered.body).message, "left to the upstream registry")
    }))

  it.live("a mirror that another one asks never asks a third: stale records make no loop", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const nodes = yield* Effect.forEach(
        ["127.0.0.2", "127.0.0.3", "127.0.0.4"],
        (address) => startNode(network, address)
      )
      // Each is said to hold what none has.
      for (const { router } of nodes) {
        yield* router.advertise([largeDigest, Reference.name(reference)].map(ContentKey.make))
      }
      const [asked, ...others] = nodes
      if (asked === undefined) {
        return assert.fail("no node")
      }
      for (const path of [`blobs/${largeDigest}`, "manifests/v1"]) {
        assert.strictEqual((yield* get(`${asked.url}/v2/team/app/${path}?ns=${ns}`)).status, 404)
      }
      for (const { log } of others) {
        const events = yield* untilRecorded(log, 2)
        assert.deepStrictEqual(events.map(({ attempts, peersSeen }) => [attempts.length, peersSeen]), [[0, 0], [0, 0]])
      }
      assert.strictEqual((yield* untilRecorded(asked.log, 2)).length, 2)
    }))

  const faults: ReadonlyArray<readonly [string, (socket: Socket) => void]> = [
    ["refuses with 404", (socket) => socket.end("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")],
    ["fails with 500", (socket) => socket.end("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")],
    ["closes at once", (socket) => socket.destroy()],
    ["resets at once", (socket) => socket.resetAndDestroy()],
    ["never answers", () => {}],
    [
      "sends a head and nothing more",
      (socket) => socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${large.length}\r\n\r\n`)
    ],
    ["speaks no HTTP", (socket) => socket.end("SSH-2.0-OpenSSH\r\n\r\n")],
    ["sends a chunked body", (socket) => socket.end("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")],
    ["closes in the body", (socket) =>
      socket.end(
        Buffer.concat([
          Buffer.from(`HTTP/1.1 200 OK\r\ncontent-length: ${large.length}\r\n\r\n`),
          large.subarray(0, 1e6)
        ])
      )],
    ["resets in the body", (socket) =>
      socket.write(
        Buffer.concat([
          Buffer.from(`HTTP/1.1 200 OK\r\ncontent-length: ${large.length}\r\n\r\n`),
          large.subarray(0, 1e6)
        ]),
        () => setTimeout(() => socket.resetAndDestroy(), 20)
      )],
    ["stalls in the body", (socket) =>
      socket.write(
        Buffer.concat([
          Buffer.from(`HTTP/1.1 200 OK\r\ncontent-length: ${large.length}\r\n\r\n`),
          large.subarray(0, 1e6)
        ])
      )]
  ]
  for (const [fault, behave] of faults) {
    it.live(`a peer that ${fault} is replaced by the next, without the client noticing`, () =>
      Effect.gen(function*() {
        const network = Router.memoryNetwork()
        yield* startHolder(network, "127.0.0.2")
        yield* startFalsePeer(network, "127.0.0.4", behave, largeDigest)
        const inBody = fault.endsWith("in the body")
        const { log, url } = yield* startNode(network, "127.0.0.3", {
          stallTimeout: Duration.seconds(2),
          // Its first byte is to count, however slow the machine is.
          ...(inBody ? { hedgeDelay: Duration.seconds(30) } : {})
        })
        const { body, status } = yield* get(`${url}/v2/team/app/blobs/${largeDigest}?ns=${ns}`)
        assert.strictEqual(status, 200)
        assert.isTrue(body.equals(large))
        const [event] = yield* untilRecorded(log, 1)
        const attempt = event?.attempts.find(({ address }) => address.startsWith("127.0.0.4:"))
        assert.isDefined(attempt)
        assert.notStrictEqual(attempt?.outcome._tag, "Served")
        assert.strictEqual((attempt?.bytes ?? 0) > 0, inBody)
      }))
  }

  it.live("a late first byte makes it hedge to the next peer, and the loser's connection is closed", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2")
      let closed = 0
      yield* startFalsePeer(network, "127.0.0.4", (socket) => socket.on("close", () => closed++), largeDigest)
      const { url } = yield* startNode(network, "127.0.0.3")
      const { body } = yield* get(`${url}/v2/team/app/blobs/${largeDigest}?ns=${ns}`)
      assert.isTrue(body.equals(large))
      yield* eventually(() => closed > 0)
      assert.strictEqual(closed, 1)
    }))

  it.live("a peer that lied about some content, or did not have it, is not asked for it again", () =>
    Effect.gen(function*() {
      const lie = (socket: Socket) =>
        socket.end(
          Buffer.concat([
            Buffer.from(`HTTP/1.1 200 OK\r\ncontent-length: ${large.length}\r\n\r\n`),
            Buffer.alloc(large.length, "x")
          ])
        )
      const lack = (socket: Socket) => socket.end("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
      for (const behave of [lie, lack]) {
        const network = Router.memoryNetwork()
        yield* startHolder(network, "127.0.0.2")
        let asked = 0
        yield* startFalsePeer(network, "127.0.0.4", (socket, request) => {
          // It may be told that it lied.
          if (request.startsWith("GET")) asked++
          behave(socket)
        }, largeDigest)
        const { url } = yield* startNode(network, "127.0.0.3", { verify: "stream" })
        const fetchLarge = get(`${url}/v2/team/app/blobs/${largeDigest}?ns=${ns}`)
        yield* fetchLarge
        assert.isTrue((yield* fetchLarge).body.equals(large))
        assert.strictEqual(asked, 1)
      }
    }))

  it.live("wrong bytes of a small blob never reach the client", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.2")
      const liar = yield* startFalsePeer(network, "127.0.0.4", (socket) =>
        socket.end(
          `HTTP/1.1 200 OK\r\ncontent-length: ${blob.length}\r\n\r\n${"x".repeat(blob.length)}`
        ), blobDigest)
      const { url } = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.seconds(30) })
      const { body, status } = yield* get(`${url}/v2/team/app/blobs/${blobDigest}?ns=${ns}`)
      assert.match(liar.requests[0] ?? "", /^GET /)
      assert.strictEqual(status, 200)
      assert.isTrue(body.equals(blob))
    }))

  it.live("a peer that sent all of the wrong bytes is told, for a small blob and a large one", () =>
    Effect.gen(function*() {
      for (const [right, digest] of [[blob, blobDigest], [large, largeDigest]] as const) {
        const network = Router.memoryNetwork()
        const { requests } = yield* startFalsePeer(
          network,
          "127.0.0.4",
          (socket) => socket.write(response(200, Buffer.alloc(right.length, "x"))),
          digest
        )
        const { url } = yield* startNode(network, "127.0.0.3", { verify: "stream" })
        yield* Effect.exit(get(`${url}/v2/team/app/blobs/${digest}?ns=${ns}`))
        yield* eventually(() => requests.length > 1)
        const [asked = "", told = "", ...more] = requests
        assert.match(asked, new RegExp(`^GET \\S+${digest}`))
        assert.notMatch(asked, /x-spegel-suspect/i)
        assert.match(told, new RegExp(`^HEAD \\S+${digest}`))
        assert.match(told, /^x-spegel-suspect: true\r$/im)
        assert.match(told, /^x-spegel-mirrored: true\r$/im)
        assert.deepStrictEqual(more, [])
      }
    }))

  it.live("two peers that sent parts of wrong content are both told, and neither is asked again", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const half = large.length / 2
      const second = yield* startFalsePeer(
        network,
        "127.0.0.5",
        (socket) =>
          socket.write(
            response(206, large.subarray(half), `content-range: bytes ${half}-${large.length - 1}/${large.length}`)
          ),
        largeDigest
      )
      const first = yield* startFalsePeer(network, "127.0.0.4", (socket) => {
        const head = response(200, Buffer.alloc(large.length, "x"))
        socket.end(head.subarray(0, head.length - half))
      }, largeDigest)
      const { log, url } = yield* startNode(network, "127.0.0.3", { verify: "stream" })
      yield* Effect.exit(get(`${url}/v2/team/app/blobs/${largeDigest}?ns=${ns}`))
      const [event] = yield* untilRecorded(log, 1)
      // Both sent some, and it was wrong.
      assert.lengthOf(event?.attempts.filter(({ bytes }) => bytes > 0) ?? [], 2)
      assert.include(event?.reason, "wrong bytes")
      yield* get(`${url}/v2/team/app/blobs/${largeDigest}?ns=${ns}`)
      yield* eventually(() => first.requests.length > 1 && second.requests.length > 1)
      // Each is told to look at what it holds, and none is asked again.
      for (const { requests } of [first, second]) {
        assert.deepStrictEqual(requests.map((request) => request.slice(0, request.indexOf(" "))), ["GET", "HEAD"])
      }
    }))

  it.live("wrong bytes of a large blob are never completed", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startFalsePeer(network, "127.0.0.4", (socket) =>
        socket.end(
          Buffer.concat([
            Buffer.from(`HTTP/1.1 200 OK\r\ncontent-length: ${large.length}\r\n\r\n`),
            Buffer.alloc(large.length, "x")
          ])
        ), largeDigest)
      const { log, url } = yield* startNode(network, "127.0.0.3", { verify: "stream" })
      const { body } = yield* get(`${url}/v2/team/app/blobs/${largeDigest}?ns=${ns}`)
      assert.isBelow(body.length, large.length)
      const [event] = yield* untilRecorded(log, 1)
      assert.include(event?.reason, "wrong bytes")
    }))

  for (
    const [fault, behave] of [
      ["sends a head and nothing more", () => {}],
      ["closes after its head", (socket) => socket.end()],
      ["resets after its head", (socket) => setImmediate(() => socket.resetAndDestroy())]
    ] as ReadonlyArray<readonly [string, (socket: Socket) => void]>
  ) {
    it.live(`a peer that ${fault} leaves the client its 404: no head goes out before a byte of the body is here`, () =>
      Effect.gen(function*() {
        const network = Router.memoryNetwork()
        const peer = yield* startFalsePeer(network, "127.0.0.4", (socket) => {
          socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${large.length}\r\n\r\n`)
          behave(socket)
        }, largeDigest)
        const { url } = yield* startNode(network, "127.0.0.3", { firstByteTimeout: Duration.millis(300) })
        const { body, status } = yield* get(`${url}/v2/team/app/blobs/${largeDigest}?ns=${ns}`)
        assert.strictEqual(status, 404)
        assert.strictEqual(error(body).code, "BLOB_UNKNOWN")
        assert.isAbove(peer.requests.length, 0)
      }))
  }

  it.live("a body that ends early ends by FIN, after its last byte, unless the bytes are wrong: an RST fails containerd's pull", () =>
    Effect.gen(function*() {
      const sent = 1_000_000
      const wrong = response(200, Buffer.alloc(large.length, "x"))
      for (
        const [reason, least, behave] of [
          ["closed the connection", sent, (socket) => socket.end(begun(large, "", sent))],
          [
            "reset",
            1,
            (socket) => socket.write(begun(large, "", sent), () => setImmediate(() => socket.resetAndDestroy()))
          ],
          ["wrong bytes", 0, (socket) => socket.write(wrong)]
        ] as ReadonlyArray<readonly [string, number, (socket: Socket) => void]>
      ) {
        const network = Router.memoryNetwork()
        yield* startFalsePeer(network, "127.0.0.4", behave, largeDigest)
        const { address, log, port } = yield* startNode(network, "127.0.0.3", { verify: "stream" })
        const ended = yield* Effect.callback<{ readonly how: string; readonly bytes: number }>((resume) => {
          let bytes = 0
          const socket = connect(port, address)
          const end = (how: string) => resume(Effect.succeed({ how, bytes }))
          socket.on("data", (chunk: Buffer) => bytes += chunk.length)
            .on("error", ({ message }) => end(message))
            .on("end", () => end("FIN"))
            .write(RawClient.request(`/v2/team/app/blobs/${largeDigest}?ns=${ns}`))
          return Effect.sync(() => socket.destroy())
        })
        // Wrong bytes are nothing to go on with.
        assert.match(ended.how, reason === "wrong bytes" ? /ECONNRESET/ : /^FIN$/, reason)
        assert.isBelow(ended.bytes, large.length)
        const [event] = yield* untilRecorded(log, 1)
        assert.strictEqual(event?.status, 0)
        assert.isAtLeast(ended.bytes, least, reason)
      }
    }))

  it.live("when no peer is left for the rest of a body, the connection ends early", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startFalsePeer(network, "127.0.0.4", (socket) =>
        socket.end(
          Buffer.concat([
            Buffer.from(`HTTP/1.1 200 OK\r\ncontent-length: ${large.length}\r\n\r\n`),
            large.subarray(0, 1e6)
          ])
        ), largeDigest)
      const { log, url } = yield* startNode(network, "127.0.0.3")
      const { body } = yield* get(`${url}/v2/team/app/blobs/${largeDigest}?ns=${ns}`)
      assert.isBelow(body.length, large.length)
      const [event] = yield* untilRecorded(log, 1)
      assert.strictEqual(event?.status, 0)
    }))
})
