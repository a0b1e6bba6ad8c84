/** Peers that send, but little of it: they keep nobody from what others would give. */
import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Outcome from "@spegel-ts/registry/Outcome"
import type { Attempt } from "@spegel-ts/registry/PullLog"
import { Router } from "@spegel-ts/router/Router"
import { Duration, Effect, Fiber } from "effect"
import type { Socket } from "node:net"
import { recordedOf, untilRecorded } from "../Recorded.ts"
import { startNode } from "../TestNode.ts"
import { get, honest, ns, response, startFalsePeer } from "./FalsePeer.ts"

const mebibyte = 1024 * 1024
const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.imageIndex, manifests: [] }))
const other = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.imageIndex, manifests: [], name: 1 }))
const manifestUrl = (url: string, reference: string) => `${url}/v2/team/app/manifests/${reference}?ns=${ns}`
const tagOf = (name: string) => `${ns}/team/app:${name}`

const headersOf = (body: Buffer, digest: string = Digest.ofBytes(body)) => [
  `content-type: ${MediaType.imageIndex}`,
  `docker-content-digest: ${digest}`
]

const reasonOf = (attempt: Attempt | undefined) => attempt === undefined ? "" : Outcome.print(attempt.outcome)

/** How a registry answers HEAD and GET of a manifest. */
const answer = (body: Buffer, asked: string): Buffer => {
  const whole = response(200, body, ...headersOf(body))
  return asked.startsWith("HEAD") ? whole.subarray(0, whole.indexOf("\r\n\r\n") + 4) : whole
}

const until = (done: () => boolean) =>
  Effect.sleep("10 millis").pipe(Effect.repeat({ until: done, times: 1000 }), Effect.andThen(Effect.sync(done)))

describe("manifests", () => {
  /** Asks for many that are claimed to have 4 MiB, of which only so many bytes come; gives how many were given up. */
  const claim = Effect.fnUntraced(function*(bytes: number) {
    const network = Router.memoryNetwork()
    const claims = Array.from({ length: 12 }, (_, index) => `claim${index}`)
    const large = Buffer.alloc(4 * mebibyte, " ")
    const crawl = (socket: Socket) => socket.write(response(200, large, ...headersOf(large)).subarray(0, bytes))
    const rogue = yield* startFalsePeer(network, "127.0.0.4", crawl, ...claims.map(tagOf))
    yield* startFalsePeer(network, "127.0.0.5", (socket, asked) => socket.write(answer(manifest, asked)), tagOf("v1"))
    // An eighth of it is for manifests: 1 MiB.
    const node = yield* startNode(network, "127.0.0.3", { verifyMemory: 8 * mebibyte })
    const claiming = yield* Effect.forEach(claims, (claim) => Effect.forkChild(get(manifestUrl(node.url, claim))))
    assert.isTrue(yield* until(() => rogue.requests.length === claims.length))
    const lost = () => claiming.filter((fiber) => fiber.pollUnsafe() !== undefined).length
    return { node, lost, stop: Fiber.interruptAll(claiming) }
  })

  it.live("take memory for the bytes that came, and not for those that are claimed", () =>
    Effect.gen(function*() {
      const { lost, node, stop } = yield* claim(50_000)
      for (let turn = 0; turn < 3; turn++) {
        assert.isTrue((yield* get(manifestUrl(node.url, "v1"))).body.equals(manifest))
      }
      assert.strictEqual(lost(), 0)
      yield* stop
    }))

  it.live("that are large and crawl lose their memory to others", () =>
    Effect.gen(function*() {
      const { lost, node, stop } = yield* claim(300_000)
      // More than there is memory for has come: some had to give theirs up, others have it still.
      assert.isTrue(yield* until(() => lost() > 0))
      assert.isBelow(lost(), 12)
      for (let turn = 0; turn < 3; turn++) {
        assert.isTrue((yield* get(manifestUrl(node.url, "v1"))).body.equals(manifest))
      }
      yield* stop
    }))

  it.live("that do not come in time are held against their peer", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startFalsePeer(
        network,
        "127.0.0.4",
        (socket, asked) => socket.write(answer(manifest, asked).subarray(0, -1)),
        tagOf("v1")
      )
      const node = yield* startNode(network, "127.0.0.3", { answerTimeout: Duration.millis(600) })
      for (let turn = 0; turn < 2; turn++) assert.strictEqual((yield* get(manifestUrl(node.url, "v1"))).status, 404)
      const [last, ...before] = yield* untilRecorded(node.log, 2)
      assert.strictEqual(before.length, 1)
      assert.deepStrictEqual(last?.attempts.map(({ outcome }) => Outcome.print(outcome)), [
        "asked after others, if at all: it was too slow a moment ago",
        "no byte for 250 ms"
      ])
    }))

  it.live("that are slower than another peer's are not held against their peer", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startFalsePeer(network, "127.0.0.5", (socket, asked) => socket.write(answer(manifest, asked)), tagOf("v1"))
      const late = yield* startFalsePeer(
        network,
        "127.0.0.4",
        (socket, asked) => socket.write(answer(manifest, asked).subarray(0, asked.startsWith("HEAD") ? undefined : -1)),
        tagOf("v1")
      )
      const node = yield* startNode(network, "127.0.0.3")
      for (let turn = 0; turn < 2; turn++) {
        assert.isTrue((yield* get(manifestUrl(node.url, "v1"))).body.equals(manifest))
      }
      assert.isAtLeast(late.requests.length, 1)
      const outcomes = (yield* node.log.recent).flatMap(({ attempts }) =>
        attempts.map(({ outcome }) => Outcome.print(outcome))
      )
      assert.include(outcomes, "slower than another peer")
      assert.notInclude(outcomes.join(), "asked after others")
    }))

  it.live("that are large are read whole, in memory that grows", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const large = Buffer.from(manifest.toString().replace("{", `{${" ".repeat(900_000)}`))
      yield* startFalsePeer(network, "127.0.0.4", (socket, asked) => socket.write(answer(large, asked)), tagOf("v1"))
      const node = yield* startNode(network, "127.0.0.3", { verifyMemory: 8 * mebibyte })
      for (let turn = 0; turn < 3; turn++) {
        assert.isTrue((yield* get(manifestUrl(node.url, "v1"))).body.equals(large))
      }
    }))

  it.live("of other providers of a tag are fetched only where they differ and are chosen", () =>
    Effect.gen(function*() {
      for (
        const [bodies, fetched] of [
          [[manifest, manifest, manifest], false],
          [[manifest, other, manifest], false],
          [[other, manifest, manifest], true]
        ] as const
      ) {
        const network = Router.memoryNetwork()
        const peers = yield* Effect.forEach(
          bodies,
          (body, index) =>
            startFalsePeer(
              network,
              `127.0.0.${8 - index}`,
              (socket, asked) => socket.write(answer(body, asked)),
              tagOf("v1")
            )
        )
        // The peer that advertised last is asked first.
        network.providers.forEach((ids) => {
          const reversed = [...ids].toReversed()
          ids.clear()
          for (const id of reversed) ids.add(id)
        })
        const node = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.seconds(30) })
        assert.isTrue((yield* get(manifestUrl(node.url, "v1"))).body.equals(manifest))
        for (const { requests } of peers.slice(1)) {
          assert.deepStrictEqual(
            requests.map((text) => text.slice(0, text.indexOf(" "))),
            ["HEAD", ...(fetched ? ["GET"] : [])]
          )
        }
      }
    }))

  it.live("that are elected and not given in time are replaced by the one in hand", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startFalsePeer(network, "127.0.0.4", (socket, asked) => socket.write(answer(manifest, asked)), tagOf("v1"))
      // They agree, and so are more.
      const silent = (socket: Socket, asked: string) => asked.startsWith("HEAD") && socket.write(answer(other, asked))
      const rivals = yield* Effect.forEach(
        ["127.0.0.5", "127.0.0.6"],
        (address) => startFalsePeer(network, address, silent, tagOf("v1"))
      )
      network.providers.forEach((ids) => {
        const [last, middle, first] = [...ids]
        ids.clear()
        for (const id of [first, middle, last]) ids.add(id ?? "")
      })
      const node = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.millis(300) })
      assert.isTrue((yield* get(manifestUrl(node.url, "v1"))).body.equals(manifest))
      assert.isTrue(rivals.some(({ requests }) => requests.some((request) => request.startsWith("GET"))))
    }))
})

describe("a layer", () => {
  const layer = Buffer.from(Uint32Array.from({ length: 6 * mebibyte / 4 }, (_, index) => index).buffer)
  const layers = [layer, layer.subarray(0, 3.5 * mebibyte)]
  const [first = "", second = ""] = layers.map((bytes) => Digest.ofBytes(bytes))
  const blobUrl = (url: string, digest: string) => `${url}/v2/team/app/blobs/${digest}?ns=${ns}`
  const bytesOf = (asked: string) => layers.find((bytes) => asked.includes(Digest.ofBytes(bytes))) ?? layer

  /** Sends so many bytes each 50 ms. */
  const crawling = (bytes: number) => (socket: Socket, asked: string) => {
    const all = honest(bytesOf(asked), asked)
    let at = 0
    const sendMore = () => {
      socket.write(all.subarray(at, at += bytes))
      if (at >= all.length || socket.destroyed) clearInterval(timer)
    }
    const timer = setInterval(sendMore, 50)
    // The first byte is not late.
    sendMore()
    socket.once("close", () => clearInterval(timer))
  }
  const quick = (socket: Socket, asked: string) => {
    const bytes = bytesOf(asked)
    const [, start, end] = /^range: bytes=(\d+)-(\d+)/im.exec(asked) ?? []
    if (end === undefined) return void socket.write(honest(bytes, asked))
    const part = bytes.subarray(Number(start), Number(end) + 1)
    socket.write(response(206, part, `content-range: bytes ${start}-${end}/${bytes.length}`))
  }

  const start = Effect.fnUntraced(function*(behaviours: ReadonlyArray<(socket: Socket, asked: string) => void>) {
    const network = Router.memoryNetwork()
    const peers = yield* Effect.forEach(
      behaviours,
      (behave, index) => startFalsePeer(network, `127.0.0.${index + 4}`, behave, second)
    )
    const node = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.seconds(30), verifySize: mebibyte })
    return { network, peers, node }
  })

  it.live("of a peer that crawls comes from another, where others have given much more", () =>
    Effect.gen(function*() {
      const { network, node } = yield* start([quick, crawling(5_000)])
      // Measures the speed of others: the first layer comes from the quick one alone.
      yield* startFalsePeer(network, "127.0.0.6", quick, first)
      yield* get(blobUrl(node.url, first))
      const pulled = yield* get(blobUrl(node.url, second))
      assert.isTrue(pulled.body.equals(layers[1] ?? Buffer.alloc(0)))
      // A late peer may be hedged, and left for the other one.
      const [slow, next] = (yield* recordedOf(node.log, second)).attempts.filter(({ bytes }) => bytes > 0)
      assert.match(reasonOf(slow), /^only \d+ bytes per second, where others gave \d+$/)
      assert.deepStrictEqual([next?.outcome._tag, next?.start], ["Served", slow?.bytes])
    }))

  it.live("of a peer that crawls is compared with another's, where nothing is known of any", () =>
    Effect.gen(function*() {
      const { node, peers } = yield* start([quick, crawling(5_000)])
      assert.isTrue((yield* get(blobUrl(node.url, second))).body.equals(layers[1] ?? Buffer.alloc(0)))
      assert.isAtLeast(peers[1]?.requests.length ?? 0, 1)
      const { attempts } = yield* recordedOf(node.log, second)
      assert.isTrue(attempts.some(({ outcome }) => outcome._tag === "Compared"))
      const [slow, next] = attempts.filter(({ bytes }) => bytes > 0)
      assert.match(reasonOf(slow), /^only \d+ bytes per second, where others gave \d+$/)
      assert.deepStrictEqual([next?.outcome._tag, next?.start], ["Served", slow?.bytes])
    }))

  it.live("stays with the only peer that has it, and with one of several where all are slow", () =>
    Effect.gen(function*() {
      for (const others of [[], [crawling(150_000), crawling(150_000)]]) {
        const { network, node } = yield* start([crawling(150_000), ...others])
        yield* startFalsePeer(network, "127.0.0.7", others.length === 0 ? quick : crawling(200_000), first)
        yield* get(blobUrl(node.url, first))
        assert.isTrue((yield* get(blobUrl(node.url, second))).body.equals(layers[1] ?? Buffer.alloc(0)))
        const [only, ...more] = (yield* recordedOf(node.log, second)).attempts.filter(({ bytes }) => bytes > 0)
        assert.deepStrictEqual([only?.outcome._tag, more], ["Served", []])
      }
    }))
})
