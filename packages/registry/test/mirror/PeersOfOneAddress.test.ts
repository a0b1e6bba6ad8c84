/** One machine may be many peers: it does not keep a pull from finding and asking others. */
import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import { ContentId } from "@spegel-ts/registry/ContentId"
import { Candidates } from "@spegel-ts/registry/internal/mirror/Candidates"
import { PeerMemory } from "@spegel-ts/registry/internal/mirror/PeerMemory"
import { PullRecord } from "@spegel-ts/registry/internal/observe/PullRecord"
import * as AskOthers from "@spegel-ts/registry/internal/pull/AskOthers"
import type * as Attempt from "@spegel-ts/registry/internal/pull/Attempt"
import * as PeerRace from "@spegel-ts/registry/internal/pull/PeerRace"
import * as PullPeers from "@spegel-ts/registry/internal/pull/PullPeers"
import type { PeerError } from "@spegel-ts/registry/MirrorError"
import { defaults, schedule } from "@spegel-ts/registry/ResolvePolicy"
import type { Peer } from "@spegel-ts/router/Peer"
import { PeerRefused, PeerStalled, PeerUnreachable } from "@spegel-ts/transfer/PeerError"
import { Clock, Duration, Effect, Fiber, Random, Stream } from "effect"
import { TestClock } from "effect/testing"

const peer = (id: string, address: string = id, proved = true): Peer => ({
  id,
  addresses: [address],
  servicePort: 1,
  proved
})
const many = (count: number, address: string, proved = true) =>
  Array.from({ length: count }, (_, index) => peer(`${address}-${index}`, address, proved))
const honest = ["a", "b", "c"].map((id) => peer(id))
const content = ContentId.Digest({ digest: Digest.ofBytes(new Uint8Array()) })
const expecting = { nobodyBetter: true, newAddress: false }

const candidatesOf = (peers: ReadonlyArray<Peer>, options?: { provedFirst?: boolean; random?: () => number }) => {
  const candidates = new Candidates({
    content,
    memory: new PeerMemory({ hedgeMillis: 50, recordMillis: 600_000 }),
    caution: undefined,
    provedFirst: options?.provedFirst ?? false,
    random: options?.random ?? (() => 0),
    onDeferred: () => {}
  })
  for (const peer of peers) candidates.add(peer)
  return candidates
}
const addressOf = (peer: Peer | undefined) => peer?.addresses[0]
const take = (candidates: Candidates, count: number) =>
  Array.from({ length: count }, () => addressOf(candidates.next(0, expecting)?.peer))

describe("Candidates", () => {
  it("asks each address once before any again", () => {
    const order = take(candidatesOf([...many(16, "liar"), ...honest]), 6)
    assert.sameMembers(order.slice(0, 4), ["a", "b", "c", "liar"])
    assert.deepStrictEqual(order.slice(4), ["liar", "liar"])
  })

  it("asks an address first as often as any other, whatever number of peers it is", () => {
    let first = 0
    for (let turn = 0; turn < 400; turn++) {
      const [address] = take(candidatesOf([...many(16, "liar"), ...honest], { random: Math.random }), 1)
      if (address === "liar") first++
    }
    // A quarter of 400; six standard deviations more.
    assert.isBelow(first, 100 + 6 * 9)
  })

  it("waits for a peer at another address if one can be expected", () => {
    const candidates = candidatesOf(many(2, "liar"))
    assert.strictEqual(addressOf(candidates.next(0, { ...expecting, newAddress: true })?.peer), "liar")
    assert.isUndefined(candidates.next(0, { ...expecting, newAddress: true }))
    candidates.add(peer("a"))
    assert.strictEqual(addressOf(candidates.next(0, { ...expecting, newAddress: true })?.peer), "a")
    assert.strictEqual(addressOf(candidates.next(0, expecting)?.peer), "liar")
  })

  it("takes a peer that was left without its fault for one that was not asked", () => {
    const candidates = candidatesOf([peer("a"), ...many(2, "liar")])
    const [first] = [candidates.next(0, expecting), candidates.next(0, expecting)]
    assert.strictEqual(addressOf(first?.peer), "a")
    if (first !== undefined) candidates.giveBack(first.peer)
    assert.deepStrictEqual(take(candidates, 2), ["a", "liar"])
  })

  it("asks peers that proved themselves before others only where their word is what counts", () => {
    const peers = [peer("other", "other", false), ...many(3, "proved"), peer("b")]
    assert.deepStrictEqual(take(candidatesOf(peers, { provedFirst: true }), 5), [
      "proved",
      "b",
      "other",
      "proved",
      "proved"
    ])
    assert.deepStrictEqual(take(candidatesOf(peers), 3), ["other", "proved", "b"])
  })
})

const start = Effect.fnUntraced(function*(
  lookup: (count: number) => Stream.Stream<Peer>,
  options?: { readonly provedFirst?: boolean }
) {
  const peers = yield* PullPeers.make({
    content,
    lookup,
    memory: new PeerMemory({ hedgeMillis: 50, recordMillis: 600_000 }),
    caution: undefined,
    provedFirst: options?.provedFirst ?? false,
    record: new PullRecord(),
    retries: defaults.resolveRetries,
    resolveTimeout: defaults.resolveTimeout,
    schedule: schedule({ resolveTimeout: defaults.resolveTimeout, hedgeDelay: Effect.succeed(defaults.hedgeDelay) })
  })
  yield* peers.startLookup
  return peers
}, Effect.provideService(Random.Random, { nextDoubleUnsafe: () => 0, nextIntUnsafe: () => 0 }))

/** Finds peers, each so many milliseconds after the one before it. */
const found = (...peers: ReadonlyArray<readonly [number, Peer]>) =>
  Stream.fromIterable(peers).pipe(Stream.mapEffect(([millis, peer]) => Effect.delay(Effect.succeed(peer), millis)))

describe("PullPeers", () => {
  /** How many peers a pull takes from a lookup that names these. */
  const taken = (named: ReadonlyArray<Peer>, provedFirst = false) =>
    Effect.gen(function*() {
      let asked = 0
      const peers = yield* start((count) => {
        asked = count
        return Stream.take(Stream.fromIterable(named), count)
      }, { provedFirst })
      while (peers.looking) {
        yield* Effect.yieldNow
        yield* peers.learnAll
      }
      return [asked, peers.options.record.peersSeen]
    })

  it.effect("finds others beside as many peers as one address may be", () =>
    Effect.gen(function*() {
      // Six addresses are enough: twice as many as may be asked.
      const others = Array.from({ length: 20 }, (_, index) => peer(`${index}`))
      assert.deepStrictEqual(yield* taken(others), [22, 6])
      assert.deepStrictEqual(yield* taken([...many(16, "liar"), ...others]), [22, 16 + 5])
    }))

  it.effect("counts only peers that proved themselves where only they count", () =>
    Effect.gen(function*() {
      const rogues = Array.from({ length: 10 }, (_, index) => peer(`rogue ${index}`, `rogue ${index}`, false))
      const named = [...rogues, ...Array.from({ length: 10 }, (_, index) => peer(`${index}`))]
      assert.deepStrictEqual(yield* taken(named, true), [22, 16])
      assert.deepStrictEqual(yield* taken(named), [22, 6])
    }))
})

describe("PeerRace", () => {
  it.effect("is not used up by one machine that fails at once as each of its peers, while others are being found", () =>
    Effect.gen(function*() {
      const liars = many(16, "liar")
      const peers = yield* start(() => found(...liars.map((peer) => [0, peer] as const), [5, peer("a")]))
      const asked: Array<string> = []
      const racing = yield* Effect.forkChild(PeerRace.race(peers, 0, ({ peer: { id } }) => {
        asked.push(id)
        return id === "a" ? Effect.succeed(id) : new PeerRefused({ peer: id, reason: "answered 500", status: 500 })
      }))
      yield* TestClock.adjust("5 millis")
      assert.strictEqual((yield* Fiber.join(racing)).value, "a")
      assert.strictEqual(asked.length, 2)
    }))

  it.effect("asks an address again once no other is found in time", () =>
    Effect.gen(function*() {
      const peers = yield* start(() => Stream.concat(Stream.fromIterable(many(2, "a")), Stream.never))
      const asked: Array<number> = []
      const racing = yield* Effect.forkChild(PeerRace.race(peers, 0, ({ peer: { id } }) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          asked.push(now)
          return asked.length === 2
            ? Effect.succeed(id)
            : new PeerRefused({ peer: id, reason: "answered 500", status: 500 })
        })))
      for (let millis = 0; millis < 50; millis++) {
        yield* TestClock.adjust("1 millis")
      }
      yield* Fiber.join(racing)
      const [first = 0, second = 0] = asked
      assert.closeTo(second - first, 20, 2)
    }))
})

describe("AskOthers", () => {
  /** Asks others beside `first`; each answers after so many milliseconds with its id, or as `fail` says. */
  const ask = Effect.fnUntraced(function*(
    lookup: Stream.Stream<Peer>,
    awaitsLookup: boolean,
    fail: Readonly<Record<string, PeerError | "silence">> = {}
  ) {
    const peers = yield* start(() => Stream.concat(Stream.make(peer("first")), lookup))
    yield* PeerRace.race(peers, 0, () => Effect.void)
    const begun = yield* Clock.currentTimeMillis
    const asking = yield* Effect.forkChild(
      AskOthers.all(peers, { time: Duration.millis(50), awaitsLookup }, ({ peer: { id } }): Effect.Effect<
        string,
        PeerError
      > => {
        const failure = fail[id]
        return failure === "silence" ? Effect.never : failure ?? Effect.delay(Effect.succeed(id), 2)
      }).pipe(Effect.bindTo("others"), Effect.bind("at", () => Clock.currentTimeMillis))
    )
    yield* TestClock.adjust("1 second")
    const { at, others: { answered, unanswered } } = yield* Fiber.join(asking)
    return {
      answered: answered.map(({ value }) => value),
      unanswered: unanswered.map(({ id }) => id),
      millis: at - begun,
      left: peers.left
    }
  })

  it.effect("waits for others to be found if it is told so, until they have answered", () =>
    Effect.gen(function*() {
      const others = found([5, peer("a")], [20, peer("b")])
      assert.deepStrictEqual(yield* ask(others, true), {
        answered: ["a", "b"],
        unanswered: [],
        millis: 27,
        left: 0
      })
      assert.deepStrictEqual(yield* ask(others, false), { answered: [], unanswered: [], millis: 0, left: 2 })
    }))

  it.effect("waits for the end of the lookup at most, and no longer than its time in all", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* ask(found([5, peer("a")]), true)).millis, 7)
      assert.strictEqual((yield* ask(Stream.empty, true)).millis, 0)
      assert.strictEqual((yield* ask(Stream.never, true)).millis, 50)
      const late = yield* ask(Stream.concat(found([40, peer("a")], [5, peer("b")]), Stream.never), true, {
        a: "silence",
        b: "silence"
      })
      assert.deepStrictEqual(late, { answered: [], unanswered: ["a", "b"], millis: 50, left: 0 })
    }))

  it.effect("keeps a machine that is found first from using up the questions", () =>
    Effect.gen(function*() {
      const others = found(...many(16, "liar").map((peer) => [0, peer] as const), [5, peer("a")])
      const { answered } = yield* ask(others, true)
      assert.deepStrictEqual(answered, ["liar-0", "a"])
    }))

  it.effect("tells those that said nothing from those that have nothing", () =>
    Effect.gen(function*() {
      const failures: ReadonlyArray<readonly [PeerError | "silence", boolean]> = [
        ["silence", true],
        [new PeerStalled({ peer: "a", waitedMillis: 20 }), true],
        [new PeerRefused({ peer: "a", reason: "answered 503", status: 503 }), true],
        [new PeerRefused({ peer: "a", reason: "answered without a digest" }), true],
        [new PeerRefused({ peer: "a", reason: "answered 404", status: 404 }), false],
        [new PeerUnreachable({ peer: "a", reason: "refused" }), false]
      ]
      for (const [failure, isUnanswered] of failures) {
        const { unanswered } = yield* ask(found([0, peer("a")], [0, peer("b")]), true, { a: failure })
        assert.deepStrictEqual(unanswered, isUnanswered ? ["a"] : [], String(failure))
      }
    }))

  it.effect("leaves no question behind when it is interrupted", () =>
    Effect.gen(function*() {
      const peers = yield* start(() => Stream.fromIterable([peer("first"), peer("a")]))
      yield* PeerRace.race(peers, 0, () => Effect.void)
      let open = 0
      const use: Attempt.Use<void> = () =>
        Effect.acquireUseRelease(
          Effect.sync(() => open++),
          () => Effect.never,
          () => Effect.sync(() => open--)
        )
      const asking = yield* Effect.forkChild(
        AskOthers.all(peers, { time: Duration.seconds(30), awaitsLookup: false }, use)
      )
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(open, 1)
      yield* Fiber.interrupt(asking)
      assert.strictEqual(open, 0)
    }))
})
