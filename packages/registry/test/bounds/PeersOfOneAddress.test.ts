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
const compare = (one: string, other: string) => one < other ? -1 : 1
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
  options?: { readonly provedFirst?: boolean; readonly retries?: number }
) {
  const peers = yield* PullPeers.make({
    content,
    lookup,
    memory: new PeerMemory({ hedgeMillis: 50, recordMillis: 600_000 }),
    caution: undefined,
    provedFirst: options?.provedFirst ?? false,
    record: new PullRecord(),
    retries: options?.retries ?? defaults.resolveRetries,
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

  it.effect("finds all that can be found where their word counts", () =>
    Effect.gen(function*() {
      // Ids of one machine, each with an address of its own where it may not be.
      const rogues = Array.from({ length: 16 }, (_, index) => peer(`rogue ${index}`))
      const named = [...rogues, ...honest]
      assert.deepStrictEqual(yield* taken(named, true), [64, 19])
      assert.deepStrictEqual(yield* taken(named), [22, 6])
    }))
})

describe("PeerRace", () => {
  it.effect("is not used up by one machine that fails at once as each of its peers, while others are being found", () =>
    Effect.gen(function*() {
      const liars = many(16, "liar")
      const peers = yield* start(() => Stream.concat(Stream.fromIterable(liars), found([5, peer("a")])))
      const asked: Array<string> = []
      const racing = yield* Effect.forkChild(PeerRace.race(peers, 0, ({ peer: { id } }) => {
        asked.push(id)
        return id === "a" ? Effect.succeed(id) : new PeerRefused({ peer: id, reason: "answered 500", status: 500 })
      }))
      for (let millis = 0; millis < 20; millis++) yield* TestClock.adjust("1 millis")
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
    thoroughly: boolean,
    fail: Readonly<Record<string, PeerError | "silence" | "late">> = {}
  ) {
    const first = peer("first")
    const peers = yield* start(() => Stream.concat(Stream.make(first), lookup), { provedFirst: thoroughly })
    yield* PeerRace.race(peers, 0, () => Effect.void)
    const begun = yield* Clock.currentTimeMillis
    const asking = yield* Effect.forkChild(
      AskOthers.all(peers, { first, time: Duration.millis(50), thoroughly }, ({ peer }): Effect.Effect<
        { readonly peer: Peer },
        PeerError
      > => {
        const failure = fail[peer.id]
        const answer = { peer: { ...peer, addresses: peer.addresses.slice(-1) } }
        if (typeof failure === "object") return failure
        return failure === "silence" ? Effect.never : Effect.delay(Effect.succeed(answer), failure === "late" ? 30 : 2)
      }).pipe(Effect.bindTo("others"), Effect.bind("at", () => Clock.currentTimeMillis))
    )
    // Step by step, so that each event has its consequences before the time of the next has come.
    for (let millis = 0; millis < 60; millis++) yield* TestClock.adjust("1 millis")
    const { at, others: { answered, unanswered } } = yield* Fiber.join(asking)
    return {
      answered: answered.map(({ value }) => value.peer.id),
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

  it.effect("hears two others at least, also if the pull has asked as many as it may", () =>
    Effect.gen(function*() {
      for (
        const [retries, thoroughly, expected] of [[3, true, 2], [1, true, 2], [5, true, 4], [3, false, 0]] as const
      ) {
        const failing = Array.from({ length: retries - 1 }, (_, index) => peer(`failing ${index}`))
        const others = Array.from({ length: 9 }, (_, index) => peer(`${index}`))
        const peers = yield* start(() => Stream.fromIterable([...failing, peer("liar"), ...others]), {
          provedFirst: true,
          retries
        })
        yield* PeerRace.race(peers, 0, ({ peer: { id } }) =>
          id === "liar" ? Effect.void : new PeerRefused({ peer: id, reason: "answered 404", status: 404 }))
        assert.strictEqual(peers.left, 0)
        const { answered } = yield* AskOthers.all(
          peers,
          { first: peer("liar"), time: Duration.millis(50), thoroughly },
          ({ peer }) =>
            Effect.succeed({ peer })
        )
        assert.strictEqual(answered.length, expected)
      }
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

  it.effect("asks others in place of those that have nothing, as many as one machine may be", () =>
    Effect.gen(function*() {
      const lacking = Array.from({ length: 20 }, (_, index) => peer(`lacking ${index}`))
      const fail = Object.fromEntries(
        lacking.map(({ id }) => [id, new PeerUnreachable({ peer: id, reason: "refused" })])
      )
      const beside = (count: number) =>
        Stream.fromIterable([...lacking.slice(0, count), peer("a"), peer("b"), peer("c")])
      assert.deepStrictEqual((yield* ask(beside(16), true, fail)).answered, ["a", "b"])
      assert.deepStrictEqual((yield* ask(beside(18), true, fail)).answered, [])
      const { answered: none, left } = yield* ask(beside(3), false, fail)
      assert.deepStrictEqual([none, left], [[], 0])
      const framed = Array.from({ length: 14 }, (_, index) => peer(`framed ${index}`, "a"))
      const refused = Object.fromEntries(
        framed.map(({ id }) => [id, new PeerUnreachable({ peer: id, reason: "refused" })])
      )
      // Ids that a machine names at an honest peer's address, where they do not answer.
      const { answered } = yield* ask(Stream.fromIterable([...framed, peer("a"), peer("b")]), true, refused)
      assert.sameMembers([...answered], ["a", "b"])
    }))

  it.effect("asks others in place of those that answer from an address that was heard", () =>
    Effect.gen(function*() {
      // Peers of the machine that is in use, each with a made-up address where it is not.
      const more: ReadonlyArray<Peer> = Array.from({ length: 15 }, (_, index) => ({
        ...peer(`more ${index}`),
        addresses: [`made up ${index}`, "first"]
      }))
      const found = Stream.fromIterable([...more, peer("a"), peer("b"), peer("c")])
      const { answered, left } = yield* ask(found, true)
      assert.sameMembers(answered.filter((id) => !id.startsWith("more")), ["a", "b"])
      assert.strictEqual(left, 0)
      // They take their time: those asked in their place cannot answer any more.
      const late = yield* ask(found, true, Object.fromEntries(more.map(({ id }) => [id, "late"])))
      assert.isEmpty(late.answered.filter((id) => !id.startsWith("more")))
      assert.strictEqual(late.unanswered.length, 2)
      assert.deepStrictEqual((yield* ask(found, false)).unanswered, [])
    }))

  it.effect("asks only those that were found before it began, unless it is told to be thorough", () =>
    Effect.gen(function*() {
      const others = Stream.concat(Stream.make(peer("a")), found([10, peer("b")]))
      for (const [thoroughly, expected] of [[true, ["a", "b"]], [false, ["a"]]] as const) {
        assert.deepStrictEqual((yield* ask(others, thoroughly, { a: "late" })).answered.toSorted(compare), [
          ...expected
        ])
      }
    }))

  it.effect("asks nobody twice, however it failed", () =>
    Effect.gen(function*() {
      const asked: Array<string> = []
      const peers = yield* start(() => Stream.fromIterable([peer("first"), peer("gone")]))
      yield* PeerRace.race(peers, 0, () => Effect.void)
      yield* AskOthers.all(
        peers,
        { first: peer("first"), time: Duration.millis(50), thoroughly: true },
        ({ peer: { id } }) => {
          asked.push(id)
          return new PeerUnreachable({ peer: id, reason: "refused" })
        }
      )
      assert.deepStrictEqual(asked, ["gone"])
    }))

  it.effect("misses those that it could not ask in time", () =>
    Effect.gen(function*() {
      for (const [thoroughly, expected] of [[true, ["a", "b"]], [false, []]] as const) {
        const peers = yield* start(() => Stream.fromIterable([peer("first"), peer("a"), peer("b")]))
        yield* PeerRace.race(peers, 0, () => Effect.void)
        const { unanswered } = yield* AskOthers.all(
          peers,
          { first: peer("first"), time: Duration.zero, thoroughly },
          ({ peer }) => Effect.succeed({ peer })
        )
        assert.deepStrictEqual(unanswered.map(({ id }) => id), [...expected])
      }
    }))

  it.effect("leaves no question behind when it is interrupted", () =>
    Effect.gen(function*() {
      const peers = yield* start(() => Stream.fromIterable([peer("first"), peer("a")]))
      yield* PeerRace.race(peers, 0, () => Effect.void)
      let open = 0
      const use: Attempt.Use<{ readonly peer: Peer }> = () =>
        Effect.acquireUseRelease(
          Effect.sync(() => open++),
          () => Effect.never,
          () => Effect.sync(() => open--)
        )
      const asking = yield* Effect.forkChild(
        AskOthers.all(peers, { first: peer("first"), time: Duration.seconds(30), thoroughly: false }, use)
      )
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(open, 1)
      yield* Fiber.interrupt(asking)
      assert.strictEqual(open, 0)
    }))
})
