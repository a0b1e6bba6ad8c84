/** Random schedules of what happens around a tracker: whatever came in between, in the end it advertises what is held. */
import { assert, describe, it } from "@effect/vitest"
import { ContentChange, ContentStore, type Name, StoreUnavailable } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import type { ContentKey } from "@spegel-ts/router/ContentKey"
import { Router, RouterNotReady, Standing } from "@spegel-ts/router/Router"
import { StateTracker } from "@spegel-ts/state-tracker/StateTracker"
import { random } from "@spegel-ts/testing/SeededRandom"
import { Cause, Context, Duration, Effect, Layer, Metric, Queue, Result, Stream } from "effect"
import { TestClock } from "effect/testing"

type Random = ReturnType<typeof random>

const digests = Array.from({ length: 12 }, (_, at) => Digest.ofBytes(Buffer.from(`blob ${at}`)))
const references = ["one.example/a:v1", "one.example/a:v2", "two.example/b:v1", "two.example/b:latest"].map((text) =>
  Result.getOrThrow(Reference.parse(text))
)
const filter = ({ tag }: Reference.Reference) => tag !== "latest"

const away = new StoreUnavailable({ operation: "list", hint: "away" })

/** How often each thing came about, so that a test can show that it did. */
type Seen = Record<"lost" | "storeFailed" | "streamFailed" | "notReady" | "bug" | "slow", number>
const nothingSeen = (): Seen => ({
  lost: 0,
  storeFailed: 0,
  streamFailed: 0,
  notReady: 0,
  bug: 0,
  slow: 0
})

/**
 * A store that looks at a blob a while after an event told of it, as one that watches files does, whose listing takes time,
 * and that may lose events, fail, and end its changes.
 */
const makeStore = ({ chance, pick }: Random, seen: Seen) => {
  const blobs = new Set<Digest.Digest>()
  const names = new Map<string, Name>()
  const pending = new Set<Digest.Digest>()
  const state = { changes: undefined as Queue.Queue<ContentChange, StoreUnavailable> | undefined, failing: 0 }
  const send = (change: ContentChange) => {
    if (state.changes !== undefined) Queue.offerUnsafe(state.changes, change)
  }
  const looked = (digest: Digest.Digest) =>
    blobs.has(digest) ? ContentChange.BlobAdded({ digest }) : ContentChange.BlobRemoved({ digest })
  /** Tells of what events have told of. */
  const look = () => {
    for (const digest of pending) send(looked(digest))
    pending.clear()
  }
  const listed = <A>(values: () => Iterable<A>) =>
    Stream.unwrap(Effect.gen(function*() {
      if (state.failing > 0) {
        state.failing--
        seen.storeFailed++
        return yield* away
      }
      const found = [...values()]
      if (chance(0.5)) yield* Effect.sleep("30 millis")
      return Stream.fromIterable(found)
    }))
  const layer = Layer.succeed(ContentStore, {
    resolve: () => Effect.die("not asked"),
    size: () => Effect.die("not asked"),
    manifestType: () => Effect.die("not asked"),
    open: () => Effect.die("not asked"),
    inProgress: Stream.empty,
    openIngest: () => Effect.die("not asked"),
    discard: () => Effect.void,
    names: listed(() => names.values()),
    digests: listed(() => blobs),
    changes: Stream.unwrap(Effect.gen(function*() {
      const queue = yield* Queue.unbounded<ContentChange, StoreUnavailable>()
      pending.clear()
      state.changes = queue
      send(ContentChange.Resync())
      return Stream.fromQueue(queue)
    }))
  })
  /** Changes something; `told` says whether an event comes of it. */
  const change = (told: boolean) => {
    const reference = pick(references)
    const digest = pick(digests)
    const key = Reference.print(reference)
    if (chance(0.6)) {
      if (!blobs.delete(digest)) blobs.add(digest)
      if (told) pending.add(digest)
    } else if (names.has(key) && chance(0.5)) {
      names.delete(key)
      if (told) send(ContentChange.NameRemoved({ reference }))
    } else {
      names.set(key, { reference, digest })
      if (told) send(ContentChange.NameAdded({ reference, digest }))
    }
  }
  const steps = [
    ...Array.from({ length: 6 }, () => () => change(true)),
    ...Array.from({ length: 3 }, () => look),
    () => {
      seen.lost++
      pending.clear()
      change(false)
      send(ContentChange.Resync())
    },
    () => {
      state.failing = 2
    },
    () => {
      seen.streamFailed++
      if (state.changes !== undefined) Queue.failCauseUnsafe(state.changes, Cause.fail(away))
    }
  ]
  const heal = () => {
    state.failing = 0
    look()
  }
  /** Every key that is to be advertised, and what is to be counted by registry. */
  const held = () => {
    const kept = [...names.values()].filter(({ reference }) => filter(reference))
    const byRegistry = Map.groupBy(kept, ({ reference }) => reference.registry)
    return {
      keys: new Set<string>([...blobs, ...kept.map(({ reference }) => Reference.name(reference))]),
      snapshot: {
        digests: blobs.size,
        tags: new Map([...byRegistry].map(([registry, of]) => [registry, of.length])),
        images: new Map(
          [...byRegistry].map(([registry, of]) => [registry, new Set(of.map(({ digest }) => digest)).size])
        )
      }
    }
  }
  return { layer, steps, heal, held, change }
}

/** A router that takes its time, is away, and has bugs, each time after it has taken some of the keys. */
const makeRouter = ({ chance }: Random, seen: Seen) => {
  const keys = new Set<string>()
  const state = { away: false, bugs: 0, slow: false }
  const take = (some: ReadonlyArray<ContentKey>) => {
    for (const key of some) if (chance(0.5)) keys.add(key)
  }
  const bug = Effect.sync((): never => {
    throw new TypeError("a bug")
  })
  const layer = Layer.succeed(Router, {
    advertise: Effect.fnUntraced(function*(some) {
      if (state.slow) {
        seen.slow++
        yield* Effect.sleep("120 millis")
      }
      if (state.bugs > 0) {
        state.bugs--
        seen.bug++
        take(some)
        return yield* bug
      }
      if (state.away) {
        seen.notReady++
        take(some)
        return yield* new RouterNotReady({ reason: "away" })
      }
      for (const key of some) keys.add(key)
    }),
    withdraw: (gone) => Effect.sync(() => gone.forEach((key) => keys.delete(key))),
    leave: Effect.void,
    lookup: () => Stream.empty,
    ready: Effect.sync(() => !state.away),
    standing: Effect.succeed(Standing.Joined({ peers: 1 })),
    peers: Effect.succeed([]),
    self: Effect.succeed({ id: "self", addresses: [], servicePort: 5000 })
  })
  const steps = [
    () => {
      state.away = !state.away
    },
    () => {
      state.bugs = 2
    },
    () => {
      state.slow = !state.slow
    }
  ]
  const heal = () => {
    state.away = state.slow = false
    state.bugs = 0
  }
  return { keys, layer, steps, heal }
}

const gauges = Effect.map(
  Metric.snapshot,
  (metrics) =>
    new Map(metrics.flatMap((metric) =>
      metric.type === "Gauge" && metric.id.startsWith("spegel_advertised_")
        ? [[`${metric.id} ${metric.attributes?.["registry"] ?? ""}`, Number(metric.state.value)] as const]
        : []
    ))
)

const runSchedule = Effect.fnUntraced(function*(seed: number, seen: Seen, refreshInterval?: Duration.Duration) {
  const chosen = random(seed)
  const store = makeStore(chosen, seen)
  const router = makeRouter(chosen, seen)
  const context = yield* Layer.build(
    StateTracker.layer({ filter, ...(refreshInterval === undefined ? {} : { refreshInterval }) }).pipe(
      Layer.provide(Layer.mergeAll(store.layer, router.layer))
    )
  )
  const tracker = Context.get(context, StateTracker)
  yield* Effect.forkScoped(tracker.run)
  const steps = [...store.steps, ...store.steps, ...router.steps]
  for (let step = 0; step < 80; step++) {
    chosen.pick(steps)()
    if (chosen.chance(0.7)) yield* TestClock.adjust(Duration.millis(chosen.pick([1, 20, 50, 100, 500, 3000])))
  }
  store.heal()
  router.heal()
  return { store, router, tracker }
})

const agree = Effect.fnUntraced(function*(
  seed: number,
  { router, store, tracker }: Effect.Success<ReturnType<typeof runSchedule>>
) {
  const { keys, snapshot } = store.held()
  const sorted = (set: ReadonlySet<string>) => [...set].toSorted()
  assert.deepStrictEqual(sorted(router.keys), sorted(keys), `seed ${seed}`)
  assert.deepStrictEqual(yield* tracker.snapshot, snapshot, `seed ${seed}`)
  const values = yield* gauges
  for (const registry of ["one.example", "two.example"]) {
    assert.strictEqual(values.get(`spegel_advertised_image_tags ${registry}`) ?? 0, snapshot.tags.get(registry) ?? 0)
    assert.strictEqual(values.get(`spegel_advertised_images ${registry}`) ?? 0, snapshot.images.get(registry) ?? 0)
  }
  assert.strictEqual(values.get("spegel_advertised_keys "), snapshot.digests)
})

/** Runs a body with metrics of its own. */
const withMetrics = <A, E, R>(body: Effect.Effect<A, E, R>) =>
  Effect.provideService(body, Metric.MetricRegistry, new Map())

describe("StateTracker, random schedules", () => {
  it.effect("advertises what is held after changes that were told, told late, or lost with a word", () =>
    Effect.gen(function*() {
      const seen = nothingSeen()
      for (let seed = 1; seed <= 70; seed++) {
        yield* withMetrics(Effect.scoped(Effect.gen(function*() {
          const run = yield* runSchedule(seed, seen)
          // Less than a comparison of everything would take to come.
          yield* TestClock.adjust("1 minute")
          yield* agree(seed, run)
        })))
      }
      for (const what of ["lost", "storeFailed", "streamFailed", "notReady", "bug", "slow"] as const) {
        assert.isAbove(seen[what], 15, what)
      }
    }))

  it.effect("advertises what is held, within its interval, after changes that nothing told of", () =>
    Effect.gen(function*() {
      const seen = nothingSeen()
      for (let seed = 1001; seed <= 1030; seed++) {
        yield* withMetrics(Effect.scoped(Effect.gen(function*() {
          const run = yield* runSchedule(seed, seen, Duration.seconds(1))
          for (let silent = 0; silent < 5; silent++) run.store.change(false)
          yield* TestClock.adjust("15 seconds")
          yield* agree(seed, run)
        })))
      }
    }))
})
