/**
 * Keeps what is advertised equal to what is held. Each change is passed on by itself. Everything is listed and compared at
 * the start, after changes were lost, and every few minutes for what no change told of.
 */
import * as Background from "@spegel-ts/background/Background"
import { type ContentChange, ContentStore } from "@spegel-ts/content/ContentStore"
import type { RegistryFilter } from "@spegel-ts/oci/RegistryFilter"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router, type RouterNotReady } from "@spegel-ts/router/Router"
import { Clock, Context, Duration, Effect, Latch, Layer, Schedule, Semaphore, Stream } from "effect"
import * as AdvertisedMetrics from "./internal/AdvertisedMetrics.ts"
import { Holdings } from "./internal/Holdings.ts"

/**
 * What is advertised, by registry host, as it was when the router had last been told of everything. Digests belong to no
 * registry.
 */
export interface Snapshot {
  /** Names (tags) advertised, by registry host. */
  readonly tags: ReadonlyMap<string, number>
  /** Different images (manifests) that those names point to, by registry host. */
  readonly images: ReadonlyMap<string, number>
  /** Digests advertised. */
  readonly digests: number
}

export interface StateTrackerOptions {
  /** Images that the mirror handles; names of others are not advertised. */
  readonly filter: RegistryFilter
  /** How often everything is compared. Default 9 minutes; the router itself keeps records from expiring. */
  readonly refreshInterval?: Duration.Duration
}

export class StateTracker extends Context.Service<StateTracker, {
  /** Runs until interrupted; waits for the store and the router when they are away, and never fails. */
  readonly run: Effect.Effect<never>
  readonly snapshot: Effect.Effect<Snapshot>
}>()("@spegel-ts/state-tracker/StateTracker") {
  static readonly layer = (
    options: StateTrackerOptions
  ): Layer.Layer<StateTracker, never, ContentStore | Router> => Layer.effect(this, make(options))
}

/** Changes that come within this time are told to the router together. */
const batchWindow = Duration.millis(50)
/** Pause after the router was told, while changes collect: telling it costs as much as several keys. */
const tellingRest = Duration.millis(200)
/** Keys that a router is offered until it takes some: it may not be ready for a while. */
const firstKeys = 100
/** Listings after lost changes take a fifth of the time at most: time to wait after one, as a multiple of what it took. */
const listingRest = 4

/** A router joins its network in its own time. */
const untilReady = Schedule.jittered(
  Schedule.min([Schedule.exponential("100 millis", 1.3), Schedule.spaced("1 second")])
)

const make = Effect.fnUntraced(function*(options: StateTrackerOptions) {
  const store = yield* ContentStore
  const router = yield* Router
  const { filter, refreshInterval = Duration.minutes(9) } = options
  const monotonic = Effect.map(Clock.monotonicTimeNanos, Duration.nanos)

  const holdings = new Holdings(filter)
  let advertised: Snapshot = { tags: new Map(), images: new Map(), digests: 0 }
  yield* AdvertisedMetrics.publish(advertised)

  const report = Effect.suspend(() => {
    const { digests, registries } = holdings.counts
    const before = advertised
    advertised = {
      tags: new Map([...registries].map(([registry, { tags }]) => [registry, tags])),
      images: new Map([...registries].map(([registry, { manifests }]) => [registry, manifests.size])),
      digests
    }
    return AdvertisedMetrics.publish(advertised, before)
  })

  let isReady = false
  /** Tells the router of all that it has not been told of, changes that come meanwhile included. */
  const tell = Effect.gen(function*() {
    while (!holdings.isTold) {
      const untold = holdings.next(isReady ? Infinity : firstKeys)
      yield* router.withdraw(untold.gone.map(ContentKey.make)).pipe(
        Effect.andThen(untold.held.length === 0 ? Effect.void : router.advertise(untold.held.map(ContentKey.make))),
        Effect.onError(() => Effect.sync(() => holdings.failed(untold)))
      )
      isReady ||= untold.held.length > 0
    }
    yield* report
  })

  let waiting = false
  const sayThatItWaits = ({ message }: RouterNotReady) =>
    Effect.suspend(() => {
      if (waiting) return Effect.void
      waiting = true
      return Effect.logInfo(`${message}: advertising waits`)
    })
  const awake = yield* Latch.make(true)
  const advertise = awake.await.pipe(
    Effect.andThen(Effect.sleep(batchWindow)),
    Effect.andThen(awake.close),
    Effect.andThen(tell.pipe(Effect.tapErrorTag("RouterNotReady", sayThatItWaits), Effect.retry(untilReady))),
    Effect.andThen(Effect.sync(() => {
      waiting = false
    })),
    Effect.andThen(Effect.sleep(tellingRest)),
    Effect.onError(() => awake.open),
    Effect.forever
  )

  /** What a listing finds does not mix with changes that are older. */
  const oneAtATime = yield* Semaphore.make(1)
  let listAgainAt = yield* monotonic
  const compare = oneAtATime.withPermit(Effect.gen(function*() {
    const begun = yield* monotonic
    const names = yield* Stream.runCollect(store.names)
    const digests = yield* Stream.runCollect(store.digests)
    holdings.compare(names, digests)
    const ended = yield* monotonic
    listAgainAt = Duration.sum(ended, Duration.times(Duration.subtract(ended, begun), listingRest))
    yield* awake.open
  }))
  const apply = (changes: ReadonlyArray<ContentChange>) =>
    oneAtATime.withPermit(Effect.suspend(() => {
      for (const change of changes) holdings.apply(change)
      return awake.open
    }))

  const follow = store.changes.pipe(
    Stream.runForEachArray((changes) =>
      // What a listing finds is newer than the changes that came with the loss.
      changes.some(({ _tag }) => _tag === "Resync")
        ? Effect.flatMap(monotonic, (now) => Effect.andThen(Effect.sleep(Duration.subtract(listAgainAt, now)), compare))
        : apply(changes)
    )
  )

  const started = yield* monotonic
  /** When everything is compared again; where that fails, it is due until it has succeeded. */
  let due = Duration.sum(started, refreshInterval)
  const refresh = Effect.gen(function*() {
    yield* Effect.sleep(Duration.subtract(due, yield* monotonic))
    yield* compare
    due = Duration.sum(yield* monotonic, refreshInterval)
  }).pipe(Effect.forever)

  return StateTracker.of({
    run: Background.keepRunning("state tracker", follow).pipe(
      Effect.andThen(Background.keepRunning("comparison of everything", refresh)),
      Effect.andThen(Background.keepRunning("advertising", advertise)),
      Effect.andThen(Effect.never),
      Effect.scoped
    ),
    snapshot: Effect.sync(() => advertised)
  })
})
