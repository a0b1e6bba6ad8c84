import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import { ContentId } from "@spegel-ts/registry/ContentId"
import { PeerMemory } from "@spegel-ts/registry/internal/mirror/PeerMemory"
import { PullRecord } from "@spegel-ts/registry/internal/observe/PullRecord"
import * as AskOthers from "@spegel-ts/registry/internal/pull/AskOthers"
import * as Attempt from "@spegel-ts/registry/internal/pull/Attempt"
import * as PeerRace from "@spegel-ts/registry/internal/pull/PeerRace"
import * as PullPeers from "@spegel-ts/registry/internal/pull/PullPeers"
import { type PeerError, PeerNotFound } from "@spegel-ts/registry/MirrorError"
import { defaults, schedule } from "@spegel-ts/registry/ResolvePolicy"
import type { Peer } from "@spegel-ts/router/Peer"
import { PeerDisconnected, PeerRefused, PeerStalled, PeerUnreachable } from "@spegel-ts/transfer/PeerError"
import { Clock, Duration, Effect, Fiber, Random, Schedule, Stream } from "effect"
import { TestClock } from "effect/testing"

const peer = (id: string): Peer => ({ id, addresses: [id], servicePort: 1 })
const [a, b] = [peer("a"), peer("b")] as const
const content = ContentId.Digest({ digest: Digest.ofBytes(new Uint8Array()) })
const unreachable = new PeerUnreachable({ peer: "a", reason: "refused" })
const firstOfAll: typeof Random.Random.Service = { nextDoubleUnsafe: () => 0, nextIntUnsafe: () => 0 }
const remembering = () => new PeerMemory({ hedgeMillis: 50, recordMillis: 600_000 })

describe("PeerRace", () => {
  const make = (
    peers: ReadonlyArray<Peer> | ((count: number) => Stream.Stream<Peer>),
    options?: {
      readonly memory?: PeerMemory
      readonly retries?: number
      readonly caution?: string
      readonly resolveTimeout?: Duration.Duration
    }
  ) =>
    Effect.gen(function*() {
      const record = new PullRecord()
      const memory = options?.memory ?? remembering()
      const { resolveTimeout = defaults.resolveTimeout, retries = defaults.resolveRetries } = options ?? {}
      const pull = yield* PullPeers.make({
        content,
        lookup: typeof peers === "function" ? peers : () => Stream.fromIterable(peers),
        memory,
        caution: options?.caution,
        provedFirst: false,
        record,
        retries,
        resolveTimeout,
        schedule: schedule({
          resolveTimeout,
          hedgeDelay: Effect.sync(() => Duration.millis(memory.hedgeDelay.millis))
        })
      })
      yield* pull.startLookup
      return {
        pull,
        record,
        memory,
        race: <A>(start: number, use: Attempt.Use<A>) => PeerRace.race(pull, start, use)
      }
    })

  it.effect("skips peers that failed before, hedges to the next, and closes the loser", () =>
    Effect.gen(function*() {
      const memory = remembering()
      memory.failed(a, content, unreachable, 0)
      const { race, record } = yield* make([a, b, peer("c")], { memory, retries: 2 })
      const open = new Set<string>()
      const asked: Array<string> = []
      const racing = yield* Effect.forkChild(race(0, ({ peer }) =>
        Effect.gen(function*() {
          asked.push(peer.id)
          yield* Effect.acquireRelease(
            Effect.sync(() => open.add(peer.id)),
            () => Effect.sync(() => open.delete(peer.id))
          )
          if (asked.length === 1) return yield* Effect.never
          return peer.id
        })))
      yield* TestClock.adjust("49 millis")
      assert.strictEqual(asked.length, 1)
      yield* TestClock.adjust("1 millis")
      const { value } = yield* Fiber.join(racing)
      assert.strictEqual(value, asked[1])
      assert.notInclude(asked, "a")
      assert.deepStrictEqual([...open], [value])
      assert.include(record.failures.join(), "slower than another peer")
      // If the winner fails after all, the loser is asked again, and then nobody else is left.
      assert.strictEqual((yield* race(0, ({ peer }) => Effect.succeed(peer.id))).value, asked[0])
      assert.instanceOf(yield* Effect.flip(race(0, () => Effect.succeed("never"))), PeerNotFound)
      assert.deepStrictEqual(record.attempts.map(({ hedge }) => hedge).filter(Boolean), [true])
    }))

  it.effect("hedges on time, whatever peers are found meanwhile", () =>
    Effect.gen(function*() {
      const found = Stream.fromIterable(Array.from({ length: 6 }, (_, index) => peer(`p${index}`))).pipe(
        Stream.schedule(Schedule.spaced("15 millis"))
      )
      const { race } = yield* make(() => found)
      const asked: Array<number> = []
      const racing = yield* Effect.forkChild(race(0, () =>
        Effect.gen(function*() {
          asked.push(yield* Clock.currentTimeMillis)
          return yield* asked.length < 3 ? Effect.never : Effect.void
        })))
      yield* TestClock.adjust("200 millis")
      yield* Fiber.join(racing)
      const [first = 0, second = 0, third = 0] = asked
      assert.deepStrictEqual([second - first, third - second], [50, 50])
    }))

  it.effect("gives up in time while no peer is being asked, however many are found that sent wrong bytes", () =>
    Effect.gen(function*() {
      const memory = remembering()
      const bad = Array.from({ length: 9 }, (_, index) => peer(`p${index}`))
      memory.corrupted(bad, content, 0)
      const { race } = yield* make(
        () => Stream.concat(Stream.schedule(Stream.fromIterable(bad), Schedule.spaced("5 millis")), Stream.never),
        { memory }
      )
      const racing = yield* Effect.forkChild(Effect.flip(race(0, () => Effect.succeed("never"))))
      yield* TestClock.adjust("19 millis")
      assert.isUndefined(racing.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Fiber.join(racing))._tag, "ResolveTimeout")
    }))

  it.effect("asks peers with objections when no better one is left: fast failures first, liars never", () =>
    Effect.gen(function*() {
      const memory = remembering()
      const [frozen, lacking, liar, killed] = [peer("frozen"), peer("lacking"), peer("liar"), peer("killed")] as const
      memory.failed(frozen, content, new PeerStalled({ peer: "frozen", waitedMillis: 1000 }), 0)
      memory.failed(lacking, content, new PeerRefused({ peer: "lacking", reason: "answered 404", status: 404 }), 0)
      memory.failed(killed, content, unreachable, 0)
      memory.corrupted([liar], content, 0, liar)
      const { race, record } = yield* make([frozen, lacking, liar, killed, a], { memory, retries: 5 })
      const asked: Array<string> = []
      const fail = Effect.fnUntraced(function*({ patienceMillis, peer }: Attempt.Attempt): Effect.fn.Return<
        never,
        PeerError
      > {
        asked.push(`${peer.id} ${patienceMillis}`)
        return yield* new PeerRefused({ peer: peer.id, reason: "answered 404", status: 404 })
      })
      assert.instanceOf(yield* Effect.flip(race(0, fail)), PeerNotFound)
      assert.deepStrictEqual(asked, ["a undefined", "killed 250", "lacking 250", "frozen 250"])
      assert.include(
        record.failures.join("; "),
        "liar:1: asked after others, if at all: it has sent wrong bytes for it"
      )
    }))

  it.effect("asks no peer with an objection while a better one may answer", () =>
    Effect.gen(function*() {
      const memory = remembering()
      memory.failed(b, content, unreachable, 0)
      const { race } = yield* make(
        () => Stream.concat(Stream.make(b), Stream.fromEffect(Effect.delay(Effect.succeed(a), 10))),
        { memory }
      )
      const asked: Array<string> = []
      const racing = yield* Effect.forkChild(race(0, ({ peer }) =>
        Effect.gen(function*() {
          asked.push(peer.id)
          return yield* Effect.delay(Effect.succeed(peer.id), 500)
        })))
      yield* TestClock.adjust("510 millis")
      assert.strictEqual((yield* Fiber.join(racing)).value, "a")
      assert.deepStrictEqual(asked, ["a"])
    }))

  it.effect("asks a peer that broke off again, after the others took long to fail", () =>
    Effect.gen(function*() {
      const { pull, race } = yield* make([a, b])
      const first = yield* race(0, ({ peer }) => Effect.succeed(peer.id))
      yield* Attempt.leave(pull, first, new PeerDisconnected({ peer: first.peer.id, reason: "killed" }))
      const asked: Array<string> = []
      const goOn = race(7, ({ peer }) =>
        Effect.gen(function*() {
          asked.push(peer.id)
          if (peer.id === first.peer.id) return peer.id
          return yield* Effect.delay(new PeerStalled({ peer: peer.id, waitedMillis: 1000 }), 1000)
        }))
      const racing = yield* Effect.forkChild(goOn)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(racing)).value, first.peer.id)
      assert.strictEqual(asked.length, 2)
    }))

  it.effect("loses little time to peers that stay frozen, over any number of requests", () =>
    Effect.gen(function*() {
      const memory = remembering()
      let asked = 0
      const freeze = ({ patienceMillis = 1000, peer }: Attempt.Attempt) => {
        asked++
        return Effect.delay(
          Effect.fail(new PeerStalled({ peer: peer.id, waitedMillis: patienceMillis })),
          patienceMillis
        )
      }
      const requests = Effect.gen(function*() {
        for (let blob = 0; blob < 100; blob++) {
          const { race } = yield* Effect.provideService(make([a, b], { memory }), Random.Random, firstOfAll)
          yield* Effect.flip(race(0, freeze))
        }
        return yield* Clock.currentTimeMillis
      })
      const running = yield* Effect.forkChild(Effect.scoped(requests))
      yield* TestClock.adjust("1 minute")
      const took = yield* Fiber.join(running)
      // Both of them once for a second, a hedge apart; then what patience there is.
      assert.isAtMost(took, 1050 + 2 * 250 + 50)
      assert.isAbove(asked, 2)
      // Well again, it is asked at once.
      yield* TestClock.adjust("1 second")
      const { race } = yield* make([a, b], { memory })
      assert.isString((yield* race(0, ({ peer }) => Effect.succeed(peer.id))).value)
    }))

  it.effect("gives peers little time while the circuit is open", () =>
    Effect.gen(function*() {
      const { pull, race, record } = yield* make([a], { caution: "is asked for what peers fail at" })
      const error = yield* Effect.flip(
        race(0, ({ patienceMillis = 0, peer }) => new PeerStalled({ peer: peer.id, waitedMillis: patienceMillis }))
      )
      assert.instanceOf(error, PeerNotFound)
      assert.include(record.failures.join("; "), "no byte for 250 ms")
      assert.isFalse(pull.lostTime)
    }))

  it.live("accepts a peer found while the process was held up, past the deadline", () =>
    Effect.gen(function*() {
      // Due while the process is held up, and after the time for a peer: that timer is the first to be seen.
      const found = Stream.fromEffect(Effect.delay(Effect.succeed(a), "400 millis"))
      const { race } = yield* make(() => Stream.concat(found, Stream.never), { resolveTimeout: Duration.millis(200) })
      const racing = yield* Effect.forkChild(race(0, ({ peer }) => Effect.succeed(peer.id)), { startImmediately: true })
      yield* Effect.yieldNow
      const begun = performance.now()
      while (performance.now() - begun < 600);
      assert.strictEqual((yield* Fiber.join(racing)).value, "a")
    }))

  it.effect("looks up again after renewal, and asks no peer twice", () =>
    Effect.gen(function*() {
      const counts: Array<number> = []
      const { pull, race } = yield* make((count) => {
        counts.push(count)
        return Stream.fromIterable(counts.length === 1 ? [a, b] : [a, b, peer("c")])
      }, { retries: 2 })
      const asked: Array<string> = []
      const fail = ({ peer }: Attempt.Attempt): Effect.Effect<never, PeerError> =>
        Effect.andThen(Effect.sync(() => asked.push(peer.id)), new PeerDisconnected({ peer: peer.id, reason: "gone" }))
      assert.instanceOf(yield* Effect.flip(race(0, fail)), PeerNotFound)
      assert.deepStrictEqual(counts, [20])
      pull.renew()
      assert.strictEqual((yield* race(7, ({ peer }) => Effect.succeed(peer.id))).value, "c")
      assert.deepStrictEqual(counts, [20, 22])
      assert.deepStrictEqual(asked.toSorted(), ["a", "b"])
    }))

  it.effect("asks the other peers at once, and waits for them no longer than told", () =>
    Effect.gen(function*() {
      const { pull, race, record } = yield* make([a, b, peer("c")])
      const { peer: first } = yield* race(0, () => Effect.void)
      const others = [a, b, peer("c")].filter(({ id }) => id !== first.id)
      const asking = yield* Effect.forkChild(
        AskOthers.all(pull, { first: a, time: Duration.millis(50), thoroughly: false }, ({ peer }) =>
          peer.id === others[0]?.id ? Effect.succeed({ peer }) : Effect.never)
      )
      yield* TestClock.adjust("50 millis")
      const { answered, unanswered } = yield* Fiber.join(asking)
      assert.deepStrictEqual(
        answered.map(({ value }) =>
          value.peer
        ),
        others.slice(0, 1)
      )
      assert.deepStrictEqual(unanswered, others.slice(1))
      assert.include(record.failures.join(), `${others[1]?.id}:1: slower than another peer`)
    }))
})
