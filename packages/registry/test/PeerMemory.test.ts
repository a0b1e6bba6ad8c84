import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import { Circuit } from "@spegel-ts/registry/Circuit"
import {
  PeerDisconnected,
  type PeerError,
  PeerNotFound,
  PeerRefused,
  PeerStalled,
  PeerUnreachable
} from "@spegel-ts/registry/MirrorError"
import { PeerMemory } from "@spegel-ts/registry/PeerMemory"
import * as PeerRace from "@spegel-ts/registry/PeerRace"
import { PullRecord } from "@spegel-ts/registry/PullLedger"
import type { Peer } from "@spegel-ts/router/Peer"
import { Clock, Duration, Effect, Fiber, Schedule, Stream } from "effect"
import { TestClock } from "effect/testing"

const peer = (id: string): Peer => ({ id, addresses: [id], registryPort: 1 })
const [a, b] = [peer("a"), peer("b")] as const
const content = "sha256:content"
const unreachable = new PeerUnreachable({ peer: "a", reason: "refused" })
const remembering = () => new PeerMemory({ hedgeMillis: 50, recordMillis: 600_000 })

describe("PeerMemory", () => {
  it("leaves a peer that cannot be reached alone, longer each time, up to a minute, until it serves", () => {
    const memory = remembering()
    let now = 0
    for (const pause of [1, 2, 4, 8, 16, 32, 60, 60]) {
      memory.failed(a, content, unreachable, now)
      assert.include(memory.objection(a, content, now + pause * 1000 - 1), "could not be reached")
      now += pause * 1000
      assert.isUndefined(memory.objection(a, content, now))
    }
    memory.served(a)
    memory.failed(a, content, unreachable, now)
    assert.isUndefined(memory.objection(a, content, now + 1000))
  })

  it("leaves a slow peer alone at once for long, and one that broke off or refused for that content", () => {
    const memory = remembering()
    memory.failed(a, content, new PeerStalled({ peer: "a", waitedMillis: 2000 }), 0)
    assert.include(memory.objection(a, "other", 9999), "too slow")
    assert.isUndefined(memory.objection(a, "other", 10_000))
    for (
      const error of [
        new PeerDisconnected({ peer: "b", reason: "reset" }),
        new PeerRefused({ peer: "b", reason: "answered 500", status: 500 })
      ]
    ) {
      const memory = remembering()
      memory.failed(b, content, error, 0)
      assert.isDefined(memory.objection(b, content, 29_999))
      assert.isUndefined(memory.objection(b, content, 30_000))
      assert.isUndefined(memory.objection(b, "other", 0))
    }
  })

  it("leaves a busy peer alone as long as it asks for, within bounds", () => {
    for (const [retryAfterMillis, pause] of [[undefined, 1000], [5000, 5000], [86_400_000, 30_000]] as const) {
      const memory = remembering()
      const busy = { peer: "a", reason: "answered 503", status: 503 }
      memory.failed(
        a,
        content,
        new PeerRefused(retryAfterMillis === undefined ? busy : { ...busy, retryAfterMillis }),
        0
      )
      assert.include(memory.objection(a, "other", pause - 1), "busy")
      assert.isUndefined(memory.objection(a, "other", pause))
    }
  })

  it("remembers a 404 for a digest as long as the record lives, for a tag not at all", () => {
    const memory = remembering()
    const refused = new PeerRefused({ peer: "a", reason: "answered 404", status: 404 })
    const digest = Digest.ofBytes(Buffer.from("absent"))
    memory.failed(a, digest, refused, 0)
    assert.strictEqual(memory.objection(a, digest, 599_999), "did not have it")
    assert.isUndefined(memory.objection(a, digest, 600_000))
    assert.isUndefined(memory.objection(b, digest, 0))
    for (const name of ["registry.example/app:v1", "sha.example/app:v1", "sha256.example:5000/app:v1"]) {
      memory.failed(a, name, refused, 0)
      assert.isUndefined(memory.objection(a, name, 0), name)
    }
  })

  it("takes nothing from a repeated liar until its lies fade; shared blame counts for that content only", () => {
    const memory = remembering()
    for (const lie of ["one", "two"]) memory.corrupted([a], lie, 0)
    for (const lie of ["one", "two", "three"]) memory.corrupted([a, b], lie, 0)
    assert.include(memory.objection(b, "three", 0), "wrong bytes")
    assert.isUndefined(memory.objection(a, "other", 0))
    memory.corrupted([a], "four", 0)
    assert.strictEqual(memory.objection(a, "other", 0), "has lied repeatedly")
    assert.isUndefined(memory.objection(a, "other", 60_000))
    assert.isUndefined(memory.objection(b, "other", 0))
  })

  it("hedges at the 80th percentile of first-byte times, and takes the less busy of two", () => {
    const memory = remembering()
    assert.strictEqual(memory.hedgeMillis, 50)
    for (let millis = 1; millis <= 100; millis++) memory.answered(millis)
    assert.strictEqual(memory.hedgeMillis, 81)
    // Where all answer at once, a byte that is late by a millisecond tells of nothing.
    for (let times = 0; times < 100; times++) memory.answered(0)
    assert.strictEqual(memory.hedgeMillis, 5)
    assert.strictEqual(memory.choose([a, b], () => 0, 0), 0)
    memory.busy(a, 1)
    assert.strictEqual(memory.choose([a, b], () => 0, 0), 1)
    memory.busy(a, -1)
    assert.strictEqual(memory.choose([a, b], () => 0, 0), 0)
    memory.lost(a, 0)
    assert.strictEqual(memory.choose([a, b], () => 0, 9999), 1)
    assert.strictEqual(memory.choose([a, b], () => 0, 10_000), 0)
  })
})

describe("PeerRace", () => {
  const hedging = (memory: PeerMemory) =>
    Schedule.forever.pipe(Schedule.modifyDelay(() => Effect.sync(() => Duration.millis(memory.hedgeMillis))))

  const make = (
    peers: ReadonlyArray<Peer> | ((count: number) => Stream.Stream<Peer>),
    options?: { readonly memory?: PeerMemory; readonly retries?: number }
  ) =>
    Effect.gen(function*() {
      const record = new PullRecord()
      const memory = options?.memory ?? remembering()
      const race = yield* PeerRace.make({
        content,
        lookup: typeof peers === "function" ? peers : () => Stream.fromIterable(peers),
        memory,
        record,
        retries: options?.retries ?? 3,
        resolveTimeout: Duration.millis(20),
        hedging: hedging(memory)
      })
      return { ...race, record, memory }
    })

  it.effect("skips whom it remembers, asks the next beside a late one, and closes the loser", () =>
    Effect.gen(function*() {
      const memory = remembering()
      memory.failed(a, content, unreachable, 0)
      const { race, record } = yield* make([a, b, peer("c")], { memory, retries: 2 })
      const open = new Set<string>()
      const asked: Array<string> = []
      const racing = yield* Effect.forkChild(race(0, (peer) =>
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
      assert.include(record.failures.join(), "later than another")
      // Where the winner fails after all, the loser is asked again, and nobody else is left then.
      assert.strictEqual((yield* race(0, ({ id }) => Effect.succeed(id))).value, asked[0])
      assert.instanceOf(yield* Effect.flip(race(0, () => Effect.succeed("never"))), PeerNotFound)
      assert.deepStrictEqual(record.attempts.map(({ hedge }) => hedge).filter(Boolean), [true])
    }))

  it.effect("is not put off its hedge by peers that are found meanwhile", () =>
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

  it.effect("waits for a peer only so long while none is asked, however many are found that it objects to", () =>
    Effect.gen(function*() {
      const memory = remembering()
      const bad = Array.from({ length: 9 }, (_, index) => peer(`p${index}`))
      for (const one of bad) memory.failed(one, content, unreachable, 0)
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

  it.live("takes what came while the process was held up, past the time for it", () =>
    Effect.gen(function*() {
      // Due while the process is held up, and after the time for a peer: that timer is the first to be seen.
      const found = Stream.fromEffect(Effect.delay(Effect.succeed(a), "40 millis"))
      const { race } = yield* make(() => Stream.concat(found, Stream.never))
      const racing = yield* Effect.forkChild(race(0, ({ id }) => Effect.succeed(id)), { startImmediately: true })
      yield* Effect.yieldNow
      const begun = performance.now()
      while (performance.now() - begun < 100);
      assert.strictEqual((yield* Fiber.join(racing)).value, "a")
    }))

  it.effect("looks up again once renewed, and asks nobody twice", () =>
    Effect.gen(function*() {
      const counts: Array<number> = []
      const { race, renew } = yield* make((count) => {
        counts.push(count)
        return Stream.fromIterable(counts.length === 1 ? [a, b] : [a, b, peer("c")])
      }, { retries: 2 })
      const asked: Array<string> = []
      const fail = (peer: Peer): Effect.Effect<never, PeerError> =>
        Effect.andThen(Effect.sync(() => asked.push(peer.id)), new PeerDisconnected({ peer: peer.id, reason: "gone" }))
      assert.instanceOf(yield* Effect.flip(race(0, fail)), PeerNotFound)
      assert.deepStrictEqual(counts, [4])
      yield* renew
      assert.strictEqual((yield* race(7, ({ id }) => Effect.succeed(id))).value, "c")
      assert.deepStrictEqual(counts, [4, 6])
      assert.deepStrictEqual(asked.toSorted(), ["a", "b"])
    }))

  it.effect("asks others beside the first, and does not wait for them longer than told", () =>
    Effect.gen(function*() {
      const { beside, race, record } = yield* make([a, b, peer("c")])
      const { peer: first } = yield* race(0, () => Effect.void)
      const others = [a, b, peer("c")].filter(({ id }) => id !== first.id)
      const asking = yield* Effect.forkChild(
        beside(Duration.millis(50), ({ id }) => id === others[0]?.id ? Effect.succeed(id) : Effect.never)
      )
      yield* TestClock.adjust("50 millis")
      assert.deepStrictEqual((yield* Fiber.join(asking)).map(({ value }) => value), [others[0]?.id ?? ""])
      assert.include(record.failures.join(), `${others[1]?.id}:1: later than another`)
    }))
})

describe("Circuit", () => {
  it("opens after failures in a row, lets one probe through, and doubles its pause while probes fail", () => {
    const circuit = new Circuit({ failures: 3, pauseMillis: 1000 })
    circuit.failed(0)
    circuit.failed(0)
    circuit.succeeded()
    circuit.failed(0)
    circuit.failed(0)
    assert.isUndefined(circuit.refuses(0))
    assert.isTrue(circuit.failed(0))
    // From requests that began before.
    assert.isFalse(circuit.failed(0))
    assert.strictEqual(circuit.refuses(1), 999)
    assert.isUndefined(circuit.refuses(1000))
    assert.strictEqual(circuit.refuses(1001), 999)
    assert.isTrue(circuit.failed(1500))
    assert.strictEqual(circuit.refuses(1500), 2000)
    // A probe that never tells is followed by another.
    assert.isUndefined(circuit.refuses(3500))
    assert.isUndefined(circuit.refuses(5500))
    circuit.succeeded()
    assert.isUndefined(circuit.refuses(5500))
    assert.isFalse(circuit.failed(5500))
  })

  it("never opens with 0 failures", () => {
    const circuit = new Circuit({ failures: 0, pauseMillis: 1000 })
    for (let turn = 0; turn < 100; turn++) assert.isFalse(circuit.failed(turn))
    assert.isUndefined(circuit.refuses(100))
  })
})
