import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import { ContentId } from "@spegel-ts/registry/ContentId"
import { PeerMemory } from "@spegel-ts/registry/internal/mirror/PeerMemory"
import { PullRecord } from "@spegel-ts/registry/internal/observe/PullRecord"
import * as PeerRace from "@spegel-ts/registry/internal/pull/PeerRace"
import * as PullPeers from "@spegel-ts/registry/internal/pull/PullPeers"
import * as ResolvePolicy from "@spegel-ts/registry/ResolvePolicy"
import type { Peer } from "@spegel-ts/router/Peer"
import { PeerStalled } from "@spegel-ts/transfer/PeerError"
import { Clock, Duration, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"

const { defaults } = ResolvePolicy
const policy = ResolvePolicy.schedule({
  resolveTimeout: defaults.resolveTimeout,
  hedgeDelay: Effect.succeed(defaults.hedgeDelay)
})

/** Notes what happens, and when: `20 ms: ask a`. */
const timeline = Effect.map(Clock.currentTimeMillis, (begun) => {
  const lines: Array<string> = []
  const note = (text: string) =>
    Effect.map(Clock.currentTimeMillis, (now) => void lines.push(`${now - begun} ms: ${text}`))
  return { lines, note }
})

describe("ResolvePolicy", () => {
  it.effect("waits 20 ms for a peer, hedges after 50 ms, and asks no more than three", () =>
    Effect.gen(function*() {
      const { lines, note } = yield* timeline
      let inFlight = -1
      const step = Effect.suspend(() => {
        inFlight++
        return Effect.as(
          note(inFlight === 0 ? "look for a peer" : inFlight === 1 ? "ask a peer" : "hedge to another"),
          { inFlight, left: defaults.resolveRetries - inFlight }
        )
      })
      const running = yield* Effect.forkChild(Effect.andThen(Effect.repeat(step, policy), note("no further hedge")))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(running)
      assert.deepStrictEqual(lines, [
        "0 ms: look for a peer",
        "20 ms: ask a peer",
        "70 ms: hedge to another",
        "120 ms: hedge to another",
        "120 ms: no further hedge"
      ])
    }))

  const peer = (number: number): Peer => ({ id: `peer ${number}`, addresses: ["127.0.0.1"], servicePort: number })

  /** A race over peers of which each is found so many milliseconds after the one before it; none answers within its second. */
  const raceOf = Effect.fnUntraced(function*(foundAfter: ReadonlyArray<number>) {
    const { lines, note } = yield* timeline
    const pull = yield* PullPeers.make({
      content: ContentId.Digest({ digest: Digest.ofBytes(new Uint8Array()) }),
      lookup: () =>
        Stream.fromIterable(foundAfter).pipe(
          Stream.mapEffect((millis, index) => Effect.delay(Effect.succeed(peer(index + 1)), millis)),
          Stream.concat(Stream.never)
        ),
      memory: new PeerMemory({ hedgeMillis: 50, recordMillis: 600_000 }),
      caution: undefined,
      provedFirst: false,
      record: new PullRecord(),
      retries: defaults.resolveRetries,
      resolveTimeout: defaults.resolveTimeout,
      schedule: policy
    })
    yield* pull.startLookup
    const race = PeerRace.race(pull, 0, ({ peer }) =>
      note(`ask ${peer.id}`).pipe(
        Effect.andThen(Effect.sleep(defaults.firstByteTimeout)),
        Effect.andThen(new PeerStalled({ peer: peer.id, waitedMillis: Duration.toMillis(defaults.firstByteTimeout) }))
      ))
    const racing = yield* Effect.forkChild(
      Effect.flatMap(Effect.flip(race), ({ _tag }) => note(`${_tag}: fall back to upstream`))
    )
    yield* TestClock.adjust("1 minute")
    yield* Fiber.join(racing)
    return lines
  })

  it.effect("is the timeline of a race: with nobody, with silent peers, and with one that is found late", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* raceOf([]), ["20 ms: ResolveTimeout: fall back to upstream"])
      assert.deepStrictEqual(yield* raceOf([5, 25, 30, 90]), [
        "5 ms: ask peer 1",
        "55 ms: ask peer 2",
        "105 ms: ask peer 3",
        "1105 ms: PeerNotFound: fall back to upstream"
      ])
      assert.deepStrictEqual(yield* raceOf([5, 295]), [
        "5 ms: ask peer 1",
        // The hedge was due at 55 ms, and there was nobody to ask.
        "300 ms: ask peer 2",
        // Both have failed. 20 ms later there is nobody better, and the first one may work again.
        "1320 ms: ask peer 1",
        "2320 ms: PeerNotFound: fall back to upstream"
      ])
    }))
})

describe("HedgeDelay", () => {
  it("is the 80th percentile of first-byte times", () => {
    const delay = new ResolvePolicy.HedgeDelay(50)
    assert.strictEqual(delay.millis, 50)
    for (let millis = 1; millis <= 100; millis++) delay.observe(millis)
    assert.strictEqual(delay.millis, 81)
    // If all answer at once, a delay of a millisecond means nothing.
    for (let times = 0; times < 100; times++) delay.observe(0)
    assert.strictEqual(delay.millis, 5)
  })
})

describe("Patience", () => {
  it("is used up by waiting in vain, and refills by a twentieth of the time", () => {
    const patience = new ResolvePolicy.Patience()
    assert.strictEqual(patience.left(0), 250)
    patience.spend(100, 0)
    assert.strictEqual(patience.left(0), 150)
    patience.spend(150, 0)
    assert.strictEqual(patience.left(399), 0)
    assert.strictEqual(patience.left(400), 20)
    assert.strictEqual(patience.left(60_000), 250)
    patience.spend(1250, 60_000)
    assert.strictEqual(patience.left(80_000), 0)
    assert.strictEqual(patience.left(80_400), 20)
  })
})
