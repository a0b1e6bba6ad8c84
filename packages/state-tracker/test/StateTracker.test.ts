import { assert, describe, it } from "@effect/vitest"
import { ContentStore, StoreUnavailable } from "@spegel-ts/content/ContentStore"
import * as MemoryStore from "@spegel-ts/content/MemoryStore"
import * as Reference from "@spegel-ts/oci/Reference"
import type { ContentKey } from "@spegel-ts/router/ContentKey"
import { Router, RouterNotReady, Standing } from "@spegel-ts/router/Router"
import { StateTracker } from "@spegel-ts/state-tracker/StateTracker"
import { Context, Duration, Effect, Layer, Metric, Result, Stream } from "effect"
import { TestClock } from "effect/testing"

const v1 = Result.getOrThrow(Reference.parse("registry.example/app:v1"))
const latest = Result.getOrThrow(Reference.parse("registry.example/app:latest"))

const bug = Effect.sync((): never => {
  throw new TypeError("a bug")
})

/** A router that writes down what it is told, and may be away. */
const recorder = () => {
  const state = { keys: new Set<string>(), calls: [] as Array<ReadonlyArray<ContentKey>>, away: false, bugs: 0 }
  const self = { id: "self", addresses: ["10.0.0.1"], registryPort: 5000 }
  const layer = Layer.succeed(Router, {
    advertise: (keys) =>
      Effect.suspend(() => {
        if (state.bugs > 0) {
          state.bugs--
          return bug
        }
        if (state.away) return Effect.fail(new RouterNotReady({ reason: "away" }))
        state.calls.push(keys)
        for (const key of keys) state.keys.add(key)
        return Effect.void
      }),
    withdraw: (keys) => Effect.sync(() => keys.forEach((key) => state.keys.delete(key))),
    leave: Effect.void,
    lookup: () => Stream.empty,
    ready: Effect.sync(() => !state.away),
    standing: Effect.succeed(Standing.Joined({ peers: 1 })),
    peers: Effect.succeed([]),
    self: Effect.succeed(self)
  })
  return { state, layer }
}

const start = Effect.fnUntraced(
  function*(options?: {
    readonly routerAway?: boolean
    readonly storeAway?: () => boolean
    /** Runs beside the store's changes: where it fails, they do. */
    readonly changes?: Effect.Effect<never>
  }) {
    const { layer: routerLayer, state } = recorder()
    state.away = options?.routerAway ?? false
    const memory = yield* Layer.build(MemoryStore.layer)
    const store = Context.get(memory, ContentStore)
    const away = new StoreUnavailable({ operation: "list", hint: "away" })
    const names = Stream.suspend(() => options?.storeAway?.() === true ? Stream.fail(away) : store.names)
    const context = yield* Layer.build(
      StateTracker.layer({ filter: ({ tag }) => tag !== "latest" }).pipe(
        Layer.provide(routerLayer),
        Layer.provide(Layer.succeed(ContentStore, {
          ...store,
          names,
          changes: Stream.merge(store.changes, Stream.fromEffect(options?.changes ?? Effect.never))
        }))
      )
    )
    const content = Context.get(memory, MemoryStore.MemoryContent)
    const tracker = Context.get(context, StateTracker)
    return { state, content, tracker, run: Effect.andThen(Effect.forkScoped(tracker.run), settle) }
  }
)

/** Lets a batch window pass. */
const settle = TestClock.adjust("200 millis")

describe("StateTracker", () => {
  it.effect("advertises everything that is held at the start", () =>
    Effect.gen(function*() {
      const { content, run, state, tracker } = yield* start()
      const digest = yield* content.put(Buffer.from("manifest"))
      yield* content.tag(v1, digest)
      yield* run
      assert.deepStrictEqual(state.keys, new Set([digest, "registry.example/app:v1"]))
      const { digests, images, tags } = yield* tracker.snapshot
      assert.deepStrictEqual([digests, images.get("registry.example"), tags.get("registry.example")], [1, 1, 1])
    }))

  it.effect("follows what comes and goes", () =>
    Effect.gen(function*() {
      const { content, run, state } = yield* start()
      yield* run
      const digest = yield* content.put(Buffer.from("one"))
      yield* content.tag(v1, digest)
      yield* settle
      assert.deepStrictEqual(state.keys, new Set([digest, "registry.example/app:v1"]))
      yield* content.untag(v1)
      yield* content.remove(digest)
      yield* settle
      assert.deepStrictEqual(state.keys, new Set())
    }))

  it.effect("hands a burst over in few calls, and no key twice", () =>
    Effect.gen(function*() {
      const { content, run, state } = yield* start()
      yield* run
      const before = state.calls.length
      yield* Effect.forEach(Array.from({ length: 300 }, (_, n) => Buffer.from(`blob ${n}`)), content.put)
      yield* settle
      const calls = state.calls.slice(before)
      assert.strictEqual(calls.flat().length, 300)
      assert.isAtMost(calls.filter((keys) => keys.length > 0).length, 3)
    }))

  it.effect("leaves filtered names out", () =>
    Effect.gen(function*() {
      const { content, run, state } = yield* start()
      const digest = yield* content.put(Buffer.from("manifest"))
      yield* content.tag(latest, digest)
      yield* run
      assert.deepStrictEqual(state.keys, new Set([digest]))
    }))

  it.effect("hands everything over again before records expire", () =>
    Effect.gen(function*() {
      const { content, run, state } = yield* start()
      const digest = yield* content.put(Buffer.from("one"))
      yield* run
      state.keys.clear()
      yield* TestClock.adjust(Duration.minutes(9))
      assert.deepStrictEqual(state.keys, new Set([digest]))
    }))

  it.effect("waits for a router that is not ready", () =>
    Effect.gen(function*() {
      const { content, run, state } = yield* start({ routerAway: true })
      const digest = yield* content.put(Buffer.from("one"))
      yield* run
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(state.keys, new Set())
      state.away = false
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(state.keys, new Set([digest]))
    }))

  it.effect("waits for a store that is away", () =>
    Effect.gen(function*() {
      let away = true
      const { content, run, state } = yield* start({ storeAway: () => away })
      const digest = yield* content.put(Buffer.from("one"))
      yield* run
      assert.deepStrictEqual(state.keys, new Set())
      away = false
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(state.keys, new Set([digest]))
    }))

  it.effect("goes on after a bug in the router", () =>
    Effect.gen(function*() {
      const { content, run, state } = yield* start()
      yield* run
      state.bugs = 3
      const digest = yield* content.put(Buffer.from("one"))
      yield* settle
      assert.deepStrictEqual(state.keys, new Set())
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(state.bugs, 0)
      assert.deepStrictEqual(state.keys, new Set([digest]))
      const next = yield* content.put(Buffer.from("two"))
      yield* settle
      assert.deepStrictEqual(state.keys, new Set([digest, next]))
    }))

  it.effect("refreshes at once what a bug has kept from being refreshed in time", () =>
    Effect.gen(function*() {
      const { content, run, state } = yield* start()
      const digest = yield* content.put(Buffer.from("one"))
      yield* run
      state.keys.clear()
      state.bugs = 2
      yield* TestClock.adjust(Duration.minutes(9.5))
      assert.strictEqual(state.bugs, 0)
      assert.deepStrictEqual(state.keys, new Set([digest]))
    }))

  it.effect("subscribes again where changes end with a bug", () =>
    Effect.gen(function*() {
      let bugs = 2
      const changes = Effect.suspend(() => bugs-- > 0 ? bug : Effect.never).pipe(Effect.delay("1 second"))
      const { content, run, state } = yield* start({ changes })
      yield* run
      yield* TestClock.adjust("10 seconds")
      assert.isBelow(bugs, 0)
      const digest = yield* content.put(Buffer.from("one"))
      yield* settle
      assert.deepStrictEqual(state.keys, new Set([digest]))
    }))

  it.effect("says in metrics when it keeps failing", () =>
    Effect.gen(function*() {
      let away = true
      const { run } = yield* start({ storeAway: () => away })
      const failing = Effect.map(
        Metric.snapshot,
        (metrics) =>
          metrics.flatMap((metric) =>
            metric.id === "spegel_background_failing" && metric.attributes?.["task"] === "state tracker" &&
              metric.type === "Gauge"
              ? [Number(metric.state.value)]
              : []
          )[0]
      )
      yield* run
      assert.strictEqual(yield* failing, 1)
      away = false
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* failing, 0)
    }))
})
