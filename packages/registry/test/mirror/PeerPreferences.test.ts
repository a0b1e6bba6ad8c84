/** A mirror asks peers in the order of its memory of them, and excludes only liars. */
import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Outcome from "@spegel-ts/registry/Outcome"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router } from "@spegel-ts/router/Router"
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

const blobUrl = (url: string, digest: string) => `${url}/v2/team/app/blobs/${digest}?ns=${ns}`

describe("the memory of peers", () => {
  it.live("gives peers little time where they keep a registry's requests waiting, until one serves", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const blobs = Array.from({ length: 5 }, (_, index) => Buffer.from(`layer ${index}`))
      const digests = blobs.map((blob) => Digest.ofBytes(blob))
      /** Each layer has a peer of its own that freezes: nothing is known of it when it is asked. */
      for (const [index, digest] of digests.entries()) {
        yield* startFalsePeer(network, `127.0.0.${index + 10}`, () => {}, digest)
      }
      const node = yield* startNode(network, "127.0.0.3", {
        firstByteTimeout: Duration.millis(400),
        circuitFailures: 2,
        circuitPause: Duration.minutes(1)
      })
      const fetchBlob = (index: number, registry = ns) =>
        Effect.andThen(
          get(`${node.url}/v2/team/app/blobs/${digests[index]}?ns=${registry}`),
          Effect.map(recordedOf(node.log, digests[index] ?? ""), ({ attempts, status }) => [
            status,
            attempts.map(({ outcome }) => Outcome.print(outcome)).join()
          ])
        )
      for (const index of [0, 1]) assert.deepStrictEqual(yield* fetchBlob(index), [404, "no byte for 400 ms"])
      const [, cautious] = yield* fetchBlob(2)
      assert.match(
        String(cautious),
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
      const frozen = Array.from({ length: 4 }, (_, index) => Digest.ofBytes(Buffer.from(`layer ${index}`)))
      for (const [index, digest] of frozen.entries()) {
        yield* startFalsePeer(network, `127.0.0.${index + 10}`, () => {}, digest)
      }
      const holder = yield* startNode(network, "127.0.0.2")
      for (const body of [small, large]) {
        yield* holder.router.advertise([ContentKey.make(yield* holder.content.put(body))])
      }
      const node = yield* startNode(network, "127.0.0.3", {
        firstByteTimeout: Duration.millis(400),
        circuitFailures: 2,
        circuitPause: Duration.minutes(1)
      })
      assert.isTrue((yield* get(blobUrl(node.url, smallDigest))).body.equals(small))
      // The third spends what time others may take; the fourth shows that none is left.
      for (const digest of frozen) assert.strictEqual((yield* get(blobUrl(node.url, digest))).status, 404)
      const { attempts } = yield* recordedOf(node.log, frozen[3] ?? "")
      assert.deepStrictEqual(attempts.map(({ outcome }) => Outcome.print(outcome)), [
        `asked after others, if at all: it is asked for ${ns}, where peers keep requests waiting`
      ])
      assert.isTrue((yield* get(blobUrl(node.url, largeDigest))).body.equals(large))
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
