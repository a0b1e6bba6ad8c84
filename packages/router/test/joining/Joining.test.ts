import { assert, describe, it } from "@effect/vitest"
import { BootstrapUnavailable } from "@spegel-ts/router/Bootstrap"
import { DialFailed } from "@spegel-ts/router/internal/joining/BootstrapDialer"
import * as Joining from "@spegel-ts/router/internal/joining/Joining"
import { Effect, Logger, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"

type Place = "alive" | "refuses" | "swallows"

const addressOf = (index: number) => `/ip4/10.0.${index >> 8}.${index & 255}/tcp/5001`
const own = "/ip4/10.9.9.9/tcp/5001"

/** A set of addresses, and a node that begins to look for peers at them. */
const world = Effect.fnUntraced(function*(places: ReadonlyMap<string, Place>, failure?: BootstrapUnavailable) {
  const state = {
    listed: [...places.keys()] as ReadonlyArray<string>,
    failure,
    asked: 0,
    peers: 0,
    dials: new Map<string, number>(),
    running: 0,
    mostAtOnce: 0,
    refusal: undefined as string | undefined,
    /** What each dial makes known. */
    refusalOnDial: undefined as string | undefined,
    logs: [] as Array<readonly [level: string, message: string]>
  }
  const changes = yield* Queue.unbounded<void>()
  const logger = Logger.make(({ logLevel, message }) => void state.logs.push([logLevel, String(message)]))
  const joining = yield* Joining.make({
    bootstrap: {
      addresses: Effect.suspend(() => {
        state.asked++
        return state.failure === undefined ? Effect.succeed(state.listed) : Effect.fail(state.failure)
      }),
      changes: Stream.fromQueue(changes)
    },
    network: {
      peers: () => state.peers,
      isMember: () => false,
      isSelf: (address) => address.toString() === own,
      refusal: () => state.refusal,
      dial: (address) =>
        Effect.gen(function*() {
          const text = address.toString()
          state.refusal = state.refusalOnDial
          state.dials.set(text, (state.dials.get(text) ?? 0) + 1)
          const place = places.get(text)
          if (place === "refuses") return yield* new DialFailed({ reason: "refused" })
          if (place !== "alive") return yield* Effect.never
          yield* Effect.sleep("5 millis")
          state.peers++
        }).pipe(
          (dial) =>
            Effect.suspend(() => {
              state.mostAtOnce = Math.max(state.mostAtOnce, ++state.running)
              return Effect.ensuring(dial, Effect.sync(() => state.running--))
            })
        )
    }
  }).pipe(Effect.provide(Logger.layer([logger])))
  const warnings = () => state.logs.flatMap(([level, message]) => level === "Warn" ? message : [])
  return { state, joining, changes, warnings }
})

const places = (count: number, place: Place, alive: ReadonlyArray<number> = []) =>
  new Map(
    Array.from({ length: count }, (_, index) =>
      [addressOf(index), alive.includes(index) ? "alive" as const : place] as const)
  )

describe("Joining", () => {
  for (const dead of ["refuses", "swallows"] as const) {
    it.effect(`finds the one of a thousand that is alive within 10 s where each other ${dead}`, () =>
      Effect.gen(function*() {
        // Several runs, because the order is random: the last address of a sweep waits longest.
        for (let run = 0; run < 5; run++) {
          yield* Effect.scoped(Effect.gen(function*() {
            const { joining, state, warnings } = yield* world(places(1000, dead, [997]))
            assert.isFalse(joining.ready())
            yield* TestClock.adjust("10 seconds")
            assert.strictEqual(state.peers, 1)
            assert.isAtMost(state.mostAtOnce, 256)
            yield* TestClock.adjust("1 second")
            assert.isTrue(joining.ready())
            assert.deepStrictEqual(joining.standing(), { _tag: "Joined", peers: 1 })
            assert.deepStrictEqual(warnings(), [])
          }))
        }
      }))
  }

  it.effect("dials a few of many that are alive, and not all of them", () =>
    Effect.gen(function*() {
      const all = Array.from({ length: 1000 }, (_, index) => index)
      const { joining, state } = yield* world(places(1000, "alive", all))
      yield* TestClock.adjust("1 second")
      assert.isTrue(joining.ready())
      assert.strictEqual(state.dials.size, 8)
    }))

  it.effect("goes on while too few that answer become peers, and dials the others first", () =>
    Effect.gen(function*() {
      const { state } = yield* world(places(40, "alive", Array.from({ length: 40 }, (_, index) => index)))
      for (let passed = 0; passed < 60 && state.dials.size < 40; passed++) {
        state.peers = 0
        yield* TestClock.adjust("1 second")
      }
      assert.strictEqual(state.dials.size, 40)
    }))

  it.effect("is ready at once if the sources name nobody but itself", () =>
    Effect.gen(function*() {
      for (const listed of [[], [own]]) {
        const { joining, state, warnings } = yield* world(new Map())
        state.listed = listed
        yield* TestClock.adjust("1 millis")
        assert.isTrue(joining.ready())
        assert.strictEqual(joining.standing()._tag, "Alone")
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(warnings(), [])
        assert.strictEqual(state.logs.filter(([, message]) => message.startsWith("ready, alone")).length, 1)
      }
    }))

  it.effect("is not ready before the grace period is over if nobody answers, and warns once", () =>
    Effect.gen(function*() {
      const { joining, warnings } = yield* world(places(30, "refuses"))
      yield* TestClock.adjust("14 seconds")
      assert.strictEqual(joining.standing()._tag, "Joining")
      assert.deepStrictEqual(warnings(), [])
      yield* TestClock.adjust("10 minutes")
      assert.isTrue(joining.ready())
      const standing = joining.standing()
      assert.strictEqual(standing._tag, "Alone")
      const [warning = "", ...more] = warnings()
      assert.deepStrictEqual(more, [])
      for (const words of ["ready, alone", "none of 30 bootstrap peers", "the router's port"]) {
        assert.include(warning, words)
      }
    }))

  it.effect("says that peers refuse it, once it knows", () =>
    Effect.gen(function*() {
      const { joining, state, warnings } = yield* world(places(3, "refuses"))
      yield* TestClock.adjust("1 second")
      assert.match(joining.reason(), /^none of 3 bootstrap peers/)
      state.refusalOnDial = "peers have another cluster key"
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(joining.reason(), state.refusal)
      assert.deepStrictEqual(warnings(), ["ready, alone: peers have another cluster key"])
      state.refusalOnDial = undefined
      yield* TestClock.adjust("1 minute")
      assert.match(joining.reason(), /^none of 3 bootstrap peers/)
    }))

  it.effect("says so as soon as the dials that show it have ended", () =>
    Effect.gen(function*() {
      const { joining, state } = yield* world(places(3, "refuses"))
      state.refusalOnDial = "peers have another cluster key"
      yield* TestClock.adjust("700 millis")
      assert.strictEqual(joining.reason(), "peers have another cluster key")
    }))

  it.effect("reports a failing source once, and again when the reason changes", () =>
    Effect.gen(function*() {
      const failure = (hint: string) => new BootstrapUnavailable({ source: "dns nowhere", hint })
      const { joining, state, warnings } = yield* world(new Map(), failure("does not resolve"))
      yield* TestClock.adjust("14 seconds")
      assert.isFalse(joining.ready())
      assert.isAbove(state.asked, 2)
      yield* TestClock.adjust("1 minute")
      assert.isTrue(joining.ready())
      assert.deepStrictEqual(warnings(), [
        "bootstrap sources failed: bootstrap dns nowhere: does not resolve",
        "ready, alone: bootstrap dns nowhere: does not resolve"
      ])
      state.failure = failure("does not answer")
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(warnings().slice(2), ["bootstrap sources failed: bootstrap dns nowhere: does not answer"])
    }))

  it.effect("uses what some sources name, and waits for more if another could not be asked", () =>
    Effect.gen(function*() {
      const { joining, state } = yield* world(
        places(1, "alive", [0]),
        new BootstrapUnavailable({ source: "dns nowhere", hint: "does not resolve", found: [own] })
      )
      yield* TestClock.adjust("5 seconds")
      assert.isFalse(joining.ready())
      state.failure = new BootstrapUnavailable({
        source: "dns nowhere",
        hint: "does not resolve",
        found: [addressOf(0)]
      })
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(joining.standing()._tag, "Joined")
    }))

  it.effect("is ready when a peer connects to it", () =>
    Effect.gen(function*() {
      const { joining, state } = yield* world(places(10, "swallows"))
      yield* TestClock.adjust("2 seconds")
      state.peers = 1
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(joining.standing(), { _tag: "Joined", peers: 1 })
    }))

  it.effect("warns again when it has lost all peers, and looks for new ones", () =>
    Effect.gen(function*() {
      const world1 = places(5, "alive", [0, 1, 2, 3, 4])
      const { joining, state, warnings } = yield* world(world1)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(joining.standing()._tag, "Joined")
      for (const address of world1.keys()) world1.set(address, "refuses")
      state.peers = 0
      yield* TestClock.adjust("10 minutes")
      assert.isTrue(joining.ready())
      assert.strictEqual(joining.standing()._tag, "Alone")
      assert.strictEqual(warnings().length, 1)
      world1.set(addressOf(3), "alive")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(joining.standing()._tag, "Joined")
    }))

  it.effect("with peers, dials a few strangers when sources change and every half hour, each in turn", () =>
    Effect.gen(function*() {
      const all = Array.from({ length: 100 }, (_, index) => index)
      const { changes, state } = yield* world(places(100, "alive", all))
      yield* TestClock.adjust("1 minute")
      const before = state.dials.size
      yield* Queue.offer(changes, undefined)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(state.dials.size, before + 16)
      yield* TestClock.adjust("4 hours")
      assert.strictEqual(state.dials.size, 100)
    }))
})
