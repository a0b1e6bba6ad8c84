import { assert, describe, it } from "@effect/vitest"
import { ContentStore, StoreUnavailable } from "@spegel-ts/content/ContentStore"
import * as MemoryStore from "@spegel-ts/content/MemoryStore"
import * as Digest from "@spegel-ts/oci/Digest"
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
  const state = {
    keys: new Set<string>(),
    calls: [] as Array<ReadonlyArray<ContentKey>>,
    /** How many keys were offered while it was away. */
    refused: [] as Array<number>,
    away: false,
    bugs: 0
  }
  const self = { id: "self", addresses: ["10.0.0.1"], servicePort: 5000 }
  const layer = Layer.succeed(Router, {
    advertise: (keys) =>
      Effect.suspend(() => {
        if (state.bugs > 0) {
          state.bugs--
          return bug
        }
        if (state.away) {
          state.refused.push(keys.length)
          return Effect.fail(new RouterNotReady({ reason: "away" }))
        }
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
    readonly isPrivate?: (digest: string) => boolean
    /** Runs beside the store's changes: where it fails, they do. */
    readonly changes?: Effect.Effect<never>
    /** Whether the store tells of changes. */
    readonly tells?: () => boolean
    /** Runs between what a listing finds and its end. */
    readonly listing?: Effect.Effect<void>
  }) {
    const { layer: routerLayer, state } = recorder()
    state.away = options?.routerAway ?? false
    const memory = yield* Layer.build(MemoryStore.layer)
    const store = Context.get(memory, ContentStore)
    const away = new StoreUnavailable({ operation: "list", hint: "away" })
    const names = Stream.suspend(() => options?.storeAway?.() === true ? Stream.fail(away) : store.names)
    let listings = 0
    const digests = Stream.fromIterableEffect(Effect.tap(Stream.runCollect(store.digests), () => {
      listings++
      return options?.listing ?? Effect.void
    }))
    const context = yield* Layer.build(
      StateTracker.layer({
        filter: ({ tag }) => tag !== "latest",
        ...(options?.isPrivate === undefined ? {} : { isPrivate: options.isPrivate })
      }).pipe(
        Layer.provide(routerLayer),
        Layer.provide(Layer.succeed(ContentStore, {
          ...store,
          names,
          digests,
          changes: Stream.merge(
            Stream.filter(store.changes, () => options?.tells?.() !== false),
            Stream.fromEffect(options?.changes ?? Effect.never)
          )
        }))
      )
    )
    const content = Context.get(memory, MemoryStore.MemoryContent)
    const tracker = Context.get(context, StateTracker)
    const run = Effect.andThen(Effect.forkScoped(tracker.run), settle)
    return { state, content, tracker, run, listings: () => listings }
  }
)

/** Lets changes be told, also right after others. */
const settle = TestClock.adjust("300 millis")

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

  it.effect("tells of a change at once, and of changes that follow one another four times a second", () =>
    Effect.gen(function*() {
      const { content, run, state } = yield* start()
      yield* run
      const before = state.calls.length
      const told = () => state.calls.slice(before).filter((keys) => keys.length > 0)
      yield* content.put(Buffer.from("alone"))
      yield* TestClock.adjust("50 millis")
      assert.strictEqual(told().length, 1)
      for (let n = 0; n < 100; n++) {
        yield* content.put(Buffer.from(`blob ${n}`))
        yield* TestClock.adjust("20 millis")
      }
      yield* settle
      assert.strictEqual(told().flat().length, 101)
      assert.isAtMost(told().length, 10)
    }))

  it.effect("leaves filtered names out", () =>
    Effect.gen(function*() {
      const { content, run, state } = yield* start()
      const digest = yield* content.put(Buffer.from("manifest"))
      yield* content.tag(latest, digest)
      yield* run
      assert.deepStrictEqual(state.keys, new Set([digest]))
    }))

  it.effect("never tells of digests that are private, whether listed or new", () =>
    Effect.gen(function*() {
      const canaries = ["before", "after"].map((text) => Digest.ofBytes(Buffer.from(text)))
      const { content, run, state, tracker } = yield* start({
        isPrivate: (digest) => canaries.some((one) => one === digest)
      })
      yield* content.put(Buffer.from("before"))
      yield* run
      yield* content.put(Buffer.from("after"))
      const digest = yield* content.put(Buffer.from("other"))
      yield* settle
      assert.deepStrictEqual(state.calls.flat().map(String), [String(digest)])
      assert.strictEqual((yield* tracker.snapshot).digests, 1)
    }))

  it.effect("lists nothing for a change, and tells the router of nothing else", () =>
    Effect.gen(function*() {
      const { content, listings, run, state } = yield* start()
      yield* Effect.forEach(Array.from({ length: 50 }, (_, n) => Buffer.from(`held ${n}`)), content.put)
      yield* run
      const [listed, called] = [listings(), state.calls.length]
      const added: Array<string> = []
      for (let n = 0; n < 5; n++) {
        added.push(yield* content.put(Buffer.from(`added ${n}`)))
        yield* settle
      }
      assert.strictEqual(listings(), listed)
      assert.deepStrictEqual<ReadonlyArray<string>>(state.calls.slice(called).flat(), added)
    }))

  it.effect("finds within nine minutes what no change told of, and tells the router of nothing else", () =>
    Effect.gen(function*() {
      let tells = true
      const { content, run, state } = yield* start({ tells: () => tells })
      const gone = yield* content.put(Buffer.from("gone"))
      const kept = yield* content.put(Buffer.from("kept"))
      yield* content.tag(v1, kept)
      yield* run
      const called = state.calls.length
      tells = false
      yield* content.remove(gone)
      const digest = yield* content.put(Buffer.from("new"))
      yield* TestClock.adjust(Duration.minutes(8.9))
      assert.deepStrictEqual(state.keys, new Set([gone, kept, "registry.example/app:v1"]))
      yield* TestClock.adjust(Duration.minutes(0.1))
      assert.deepStrictEqual(state.keys, new Set([kept, "registry.example/app:v1", digest]))
      assert.deepStrictEqual<ReadonlyArray<string>>(state.calls.slice(called).flat(), [digest])
    }))

  it.effect("does not advertise again what somebody else has withdrawn, as where a blob is damaged", () =>
    Effect.gen(function*() {
      const { content, run, state } = yield* start()
      const digest = yield* content.put(Buffer.from("damaged"))
      yield* run
      assert.isTrue(state.keys.delete(digest))
      yield* TestClock.adjust(Duration.minutes(20))
      assert.deepStrictEqual(state.keys, new Set())
    }))

  it.effect("takes a change that comes while everything is listed", () =>
    Effect.gen(function*() {
      const { content, listings, run, state } = yield* start({ listing: Effect.sleep("10 seconds") })
      yield* run
      yield* TestClock.adjust(Duration.minutes(9))
      assert.strictEqual(listings(), 2)
      const digest = yield* content.put(Buffer.from("meanwhile"))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(listings(), 2)
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

  it.effect("compares at once what a bug has kept from being compared in time", () =>
    Effect.gen(function*() {
      let tells = true
      const { content, run, state } = yield* start({ tells: () => tells })
      yield* run
      tells = false
      const digest = yield* content.put(Buffer.from("one"))
      state.bugs = 2
      yield* TestClock.adjust(Duration.minutes(9.5))
      assert.strictEqual(state.bugs, 0)
      assert.deepStrictEqual(state.keys, new Set([digest]))
    }))

  it.effect("offers a router that is not ready a part only, each time, and all of it in the end", () =>
    Effect.gen(function*() {
      const { content, run, state } = yield* start({ routerAway: true })
      const blobs = Array.from({ length: 3000 }, (_, n) => Buffer.from(`held ${n}`))
      const digests = yield* Effect.forEach(blobs, content.put)
      yield* run
      yield* TestClock.adjust("5 seconds")
      assert.isAbove(state.refused.length, 3)
      assert.isAtMost(Math.max(...state.refused), 100)
      state.away = false
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(state.keys, new Set<string>(digests))
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
