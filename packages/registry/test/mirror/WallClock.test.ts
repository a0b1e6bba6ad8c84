import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Outcome from "@spegel-ts/registry/Outcome"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router } from "@spegel-ts/router/Router"
import { Clock, Duration, Effect } from "effect"
import type { Socket } from "node:net"
import { startNode } from "../TestNode.ts"
import { get, ns, response, startFalsePeer } from "./FalsePeer.ts"

/** Real time, with a wall clock that can be set and time that can pass at once. */
const makeClock = Effect.map(Clock.Clock, (real) => {
  const ahead = { wall: 0n, passed: 0n }
  const wall = () => real.currentTimeNanosUnsafe() + ahead.wall + ahead.passed
  const monotonic = () => real.monotonicTimeNanosUnsafe() + ahead.passed
  const clock: Clock.Clock = {
    currentTimeNanosUnsafe: wall,
    currentTimeNanos: Effect.sync(wall),
    currentTimeMillisUnsafe: () => Number(wall() / 1_000_000n),
    currentTimeMillis: Effect.sync(() => Number(wall() / 1_000_000n)),
    monotonicTimeNanosUnsafe: monotonic,
    monotonicTimeNanos: Effect.sync(monotonic),
    sleep: (duration) => real.sleep(duration)
  }
  return {
    clock,
    set: (by: Duration.Duration) => {
      ahead.wall += Duration.toNanosUnsafe(by)
    },
    pass: (time: Duration.Duration) => {
      ahead.passed += Duration.toNanosUnsafe(time)
    }
  }
})

const blobs = Array.from({ length: 6 }, (_, index) => Buffer.from(`layer ${index}`))
const digests = blobs.map((blob) => Digest.ofBytes(blob))
const urlOf = (url: string, digest: string, repository = "app") =>
  `${url}/v2/team/${repository}/blobs/${digest}?ns=${ns}`

describe("a wall clock", () => {
  for (
    const [how, by] of [
      ["back by an hour", Duration.negate(Duration.hours(1))],
      ["forward by a day", Duration.days(1)]
    ] as const
  ) {
    it.live(`that is set ${how} does not change how long a busy peer is left alone`, () =>
      Effect.gen(function*() {
        const { clock, pass, set } = yield* makeClock
        yield* Effect.gen(function*() {
          const network = Router.memoryNetwork()
          const holder = yield* startNode(network, "127.0.0.2")
          yield* Effect.forEach(blobs, holder.content.put)
          yield* holder.router.advertise(digests.map((digest) => ContentKey.make(digest)))
          const busy = yield* startFalsePeer(
            network,
            "127.0.0.4",
            (socket) => socket.write(response(503, "{}", "retry-after: 30")),
            ...digests
          )
          const node = yield* startNode(network, "127.0.0.3")
          const fetchBlob = (index: number) =>
            Effect.map(get(urlOf(node.url, digests[index] ?? "")), ({ status }) => assert.strictEqual(status, 200))
          yield* fetchBlob(0)
          assert.strictEqual(busy.requests.length, 1)
          set(by)
          yield* fetchBlob(1)
          pass(Duration.seconds(20))
          yield* fetchBlob(2)
          assert.strictEqual(busy.requests.length, 1)
          pass(Duration.seconds(11))
          yield* fetchBlob(3)
          assert.strictEqual(busy.requests.length, 2)
          // The log of pulls has the time that people know.
          const [event] = yield* node.log.recent
          assert.closeTo(event?.time ?? 0, yield* Clock.currentTimeMillis, 10_000)
        }).pipe(Effect.provideService(Clock.Clock, clock))
      }))

    it.live(`that is set ${how} does not change how long a registry's circuit is open`, () =>
      Effect.gen(function*() {
        const { clock, pass, set } = yield* makeClock
        yield* Effect.gen(function*() {
          const network = Router.memoryNetwork()
          // Two have served something else before; nothing is known of the others when they are asked.
          const greetings = [Buffer.from("one greeting"), Buffer.from("another greeting")]
          const peers = yield* Effect.forEach(digests, (digest, index) => {
            const greeting = greetings[index] ?? Buffer.of()
            const name = Digest.ofBytes(greeting)
            const greet = (socket: Socket, asked: string) => {
              if (asked.includes(name)) socket.write(response(200, greeting))
            }
            return startFalsePeer(network, `127.0.0.${index + 10}`, greet, digest, ...(index < 2 ? [name] : []))
          })
          const node = yield* startNode(network, "127.0.0.3", {
            firstByteTimeout: Duration.millis(200),
            circuitFailures: 2,
            circuitPause: Duration.minutes(1)
          })
          for (const greeting of greetings) {
            assert.isTrue((yield* get(urlOf(node.url, Digest.ofBytes(greeting)))).body.equals(greeting))
          }
          const isCautious = (index: number) =>
            Effect.gen(function*() {
              yield* get(urlOf(node.url, digests[index] ?? "", `app${index}`))
              assert.strictEqual(peers[index]?.requests.length, index < 2 ? 2 : 1)
              const [event] = yield* node.log.recent
              return event?.attempts.some(({ outcome }) =>
                Outcome.print(outcome).includes("where peers keep requests waiting")
              )
            })
          for (const index of [0, 1]) assert.isFalse(yield* isCautious(index))
          set(by)
          assert.isTrue(yield* isCautious(2))
          pass(Duration.minutes(2))
          assert.isFalse(yield* isCautious(3))
        }).pipe(Effect.provideService(Clock.Clock, clock))
      }))
  }
})
