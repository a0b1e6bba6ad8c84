/** A mirror asks peers in the order of its memory of them, and excludes only liars. */
import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Outcome from "@spegel-ts/registry/Outcome"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { type MemoryNetwork, Router } from "@spegel-ts/router/Router"
import { Duration, Effect, Schedule } from "effect"
import type { Socket } from "node:net"
import { recordedOf } from "../Recorded.ts"
import { startNode } from "../TestNode.ts"
import { begun, get, honest, ns, response, startFalsePeer } from "./FalsePeer.ts"

const small = Buffer.from("a small layer ".repeat(100))
const smallDigest = Digest.ofBytes(small)
/** Larger than what is verified before it is answered. */
const large = Buffer.from(Uint32Array.from({ length: 1_600_000 }, (_, index) => index).buffer)
const largeDigest = Digest.ofBytes(large)

const blobUrl = (url: string, digest: string, repository = "app") =>
  `${url}/v2/team/${repository}/blobs/${digest}?ns=${ns}`

describe("the memory of peers", () => {
  /** Two peers that serve `served`, each one of them, and freeze for all else. */
  const startFreezing = Effect.fnUntraced(
    function*(network: MemoryNetwork, served: readonly [Buffer, Buffer], frozen: readonly [string, string]) {
      for (const [index, body] of served.entries()) {
        const digest = Digest.ofBytes(body)
        const serve = (socket: Socket, asked: string) => {
          if (asked.includes(digest)) socket.write(honest(body, asked))
        }
        yield* startFalsePeer(network, `127.0.0.${index + 20}`, serve, digest, frozen[index] ?? "")
      }
    }
  )
  const cautious = {
    firstByteTimeout: Duration.millis(400),
    circuitFailures: 2,
    circuitPause: Duration.minutes(1)
  }

  it.live("gives peers little time where known ones keep a registry's requests waiting, until one serves", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const greetings = [Buffer.from("one greeting"), Buffer.from("another greeting")] as const
      const [first, second, ...others] = Array.from(
        { length: 5 },
        (_, index) => Digest.ofBytes(Buffer.from(`layer ${index}`))
      )
      const digests = [first ?? "", second ?? "", ...others]
      yield* startFreezing(network, greetings, [first ?? "", second ?? ""])
      /** Each other layer has a peer of its own that freezes: nothing is known of it when it is asked. */
      for (const [index, digest] of others.entries()) {
        yield* startFalsePeer(network, `127.0.0.${index + 10}`, () => {}, digest)
      }
      const node = yield* startNode(network, "127.0.0.3", cautious)
      const fetchBlob = (index: number, registry = ns) =>
        Effect.andThen(
          get(`${node.url}/v2/team/app${index}/blobs/${digests[index]}?ns=${registry}`),
          Effect.map(recordedOf(node.log, digests[index] ?? ""), ({ attempts, status }) => [
            status,
            attempts.map(({ outcome }) => Outcome.print(outcome)).join()
          ])
        )
      for (const greeting of greetings) {
        assert.isTrue((yield* get(blobUrl(node.url, Digest.ofBytes(greeting)))).body.equals(greeting))
      }
      for (const index of [0, 1]) assert.deepStrictEqual(yield* fetchBlob(index), [404, "no byte for 400 ms"])
      const [, withCare] = yield* fetchBlob(2)
      assert.match(
        String(withCare),
        /is asked for registry\.example, where peers keep requests waiting,no byte for (2\d\d|\d\d)(\.\d+)? ms/
      )
      // Another registry's images are asked for as ever.
      assert.deepStrictEqual(yield* fetchBlob(3, "other.example"), [404, "no byte for 400 ms"])
      // A peer that is well serves, and all have their time again.
      const holder = yield* startNode(network, "127.0.0.2")
      yield* holder.router.advertise([ContentKey.make(yield* holder.content.put(small))])
      // On a busy machine it may not answer in the time that is left, which comes back slowly.
      const { body } = yield* get(blobUrl(node.url, smallDigest)).pipe(
        Effect.repeat({ schedule: Schedule.spaced("100 millis"), until: ({ body }) => body.equals(small), times: 100 })
      )
      assert.isTrue(body.equals(small))
      assert.deepStrictEqual(yield* fetchBlob(4), [404, "no byte for 400 ms"])
    }))

  it.live("gives a peer that has served its usual time, while others keep a registry's requests waiting", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const greetings = [Buffer.from("one greeting"), Buffer.from("another greeting")] as const
      const frozen = Array.from({ length: 4 }, (_, index) => Digest.ofBytes(Buffer.from(`layer ${index}`)))
      yield* startFreezing(network, greetings, [frozen[0] ?? "", frozen[1] ?? ""])
      for (const [index, digest] of frozen.slice(2).entries()) {
        yield* startFalsePeer(network, `127.0.0.${index + 10}`, () => {}, digest)
      }
      const holder = yield* startNode(network, "127.0.0.2")
      for (const body of [small, large]) {
        yield* holder.router.advertise([ContentKey.make(yield* holder.content.put(body))])
      }
      const node = yield* startNode(network, "127.0.0.3", cautious)
      for (const body of [...greetings, small]) {
        assert.isTrue((yield* get(blobUrl(node.url, Digest.ofBytes(body)))).body.equals(body))
      }
      // The third spends what time others may take; the fourth shows that none is left.
      for (const [index, digest] of frozen.entries()) {
        assert.strictEqual((yield* get(blobUrl(node.url, digest, `app${index}`))).status, 404)
      }
      const { attempts } = yield* recordedOf(node.log, frozen[3] ?? "")
      assert.deepStrictEqual(attempts.map(({ outcome }) => Outcome.print(outcome)), [
        `asked after others, if at all: it is asked for ${ns}, where peers keep requests waiting`
      ])
      assert.isTrue((yield* get(blobUrl(node.url, largeDigest))).body.equals(large))
    }))

  it.live("lets nobody open a circuit alone: not strangers, and not one address that has served as many peers", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const node = yield* startNode(network, "127.0.0.3", cautious)
      const tagOf = (index: number) => `${ns}/team/app${index}:v1`
      const waitFor = (index: number) =>
        get(`${node.url}/v2/team/app${index}/manifests/v1?ns=${ns}`).pipe(
          Effect.map(({ status }) => assert.strictEqual(status, 404))
        )
      const strangers = [0, 1, 2, 3]
      for (const index of strangers) yield* startFalsePeer(network, `127.0.0.${40 + index}`, () => {}, tagOf(index))
      yield* Effect.forEach(strangers, waitFor, { concurrency: "unbounded" })
      // Peers of one machine, each with an address of its own where nobody answers. They serve something and freeze then.
      const numbers = Array.from({ length: 12 }, (_, index) => index + 4)
      const bodyOf = (index: number) => Buffer.from(`served by ${index}`)
      const rogue = yield* startFalsePeer(network, "127.0.0.4", (socket, asked) => {
        const index = numbers.find((index) => asked.includes(Digest.ofBytes(bodyOf(index))))
        if (index !== undefined) socket.write(honest(bodyOf(index), asked))
      })
      const { servicePort = 0 } = network.members.get(rogue.id) ?? {}
      for (const index of numbers) {
        const id = `rogue-${index}`
        network.members.set(id, { id, addresses: [`127.0.1.${index}`, "127.0.0.4"], servicePort })
        for (const name of [tagOf(index), Digest.ofBytes(bodyOf(index))]) {
          network.providers.set(ContentKey.make(name), new Set([id]))
        }
        const { body } = yield* get(blobUrl(node.url, Digest.ofBytes(bodyOf(index))))
        assert.isTrue(body.equals(bodyOf(index)))
      }
      yield* Effect.forEach(numbers, waitFor, { concurrency: "unbounded" })
      assert.isAtLeast(rogue.requests.length, 2 * numbers.length)
      // A stranger has all of its time: the circuit is closed.
      const late = Digest.ofBytes(Buffer.from("late"))
      yield* startFalsePeer(network, "127.0.0.5", () => {}, late)
      assert.strictEqual((yield* get(blobUrl(node.url, late))).status, 404)
      const { attempts } = yield* recordedOf(node.log, late)
      assert.deepStrictEqual(attempts.map(({ outcome }) => Outcome.print(outcome)), ["no byte for 400 ms"])
    }))

  it.live("takes the rest from a holder that was killed and is back, when the other one freezes", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      let up = true
      const frozen = yield* startFalsePeer(
        network,
        "127.0.0.5",
        () => {
          // By the time that it is found out, the holder has been started again.
          up = true
        },
        largeDigest,
        smallDigest
      )
      const holder = yield* startFalsePeer(
        network,
        "127.0.0.4",
        (socket, asked) => {
          if (!up) return socket.resetAndDestroy()
          if (holder.requests.length > 1) {
            return socket.write(honest(asked.includes(smallDigest) ? small : large, asked))
          }
          up = false
          socket.write(begun(large, asked, 600_000), () => socket.resetAndDestroy())
        },
        largeDigest,
        smallDigest
      )
      const node = yield* startNode(network, "127.0.0.3", {
        firstByteTimeout: Duration.millis(300),
        hedgeDelay: Duration.seconds(30)
      })
      assert.isTrue((yield* get(blobUrl(node.url, largeDigest))).body.equals(large))
      assert.deepStrictEqual([frozen.requests.length, holder.requests.length], [1, 2])
      assert.isTrue((yield* get(blobUrl(node.url, smallDigest))).body.equals(small))
      assert.strictEqual(frozen.requests.length, 1)
    }))

  it.live("asks the only holder again at once, whatever it did, unless it sent wrong bytes", () =>
    Effect.gen(function*() {
      for (
        const fail of [
          (socket: Socket) => socket.resetAndDestroy(),
          (socket: Socket) => socket.write(response(404, "{}")),
          (socket: Socket) => socket.write(response(500, "{}")),
          (socket: Socket) => socket.write(response(503, "{}", "retry-after: 30")),
          () => {}
        ]
      ) {
        const network = Router.memoryNetwork()
        let failing = true
        yield* startFalsePeer(
          network,
          "127.0.0.4",
          (socket, asked) => failing ? fail(socket) : socket.write(honest(small, asked)),
          smallDigest
        )
        const { url } = yield* startNode(network, "127.0.0.3", { firstByteTimeout: Duration.millis(300) })
        for (let turn = 0; turn < 3; turn++) assert.strictEqual((yield* get(blobUrl(url, smallDigest))).status, 404)
        failing = false
        const served = get(blobUrl(url, smallDigest)).pipe(
          Effect.filterOrFail(({ status }) => status === 200, () => "not yet"),
          Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 200 })
        )
        assert.isTrue((yield* served).body.equals(small))
      }
    }))
})
