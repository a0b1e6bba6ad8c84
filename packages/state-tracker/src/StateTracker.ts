/**
 * Advertises what this node holds. Changes of the store are passed on one by one. At the start, after changes were
 * lost, and every few minutes, everything is listed and compared.
 */
import * as Background from "@spegel-ts/background/Background"
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { type ContentChange, ContentStore } from "@spegel-ts/content/ContentStore"
import type { RegistryFilter } from "@spegel-ts/oci/RegistryFilter"
import type { Router } from "@spegel-ts/router/Router"
import { Context, Duration, Effect, Layer, Semaphore, Stream } from "effect"
import * as AdvertisedMetrics from "./internal/AdvertisedMetrics.ts"
import * as Advertiser from "./internal/Advertiser.ts"
import { Holdings } from "./internal/Holdings.ts"

/**
 * The number of keys advertised when the router had last been told of everything. Names are counted by registry host;
 * digests belong to no registry.
 */
export interface Snapshot {
  /** Names (tags) advertised, by registry host. */
  readonly tags: ReadonlyMap<string, number>
  /** Different images (manifests) that those names point to, by registry host. */
  readonly images: ReadonlyMap<string, number>
  /** Digests advertised. */
  readonly digests: number
}

/** The images to advertise, and how often to compare. */
export interface StateTrackerOptions {
  /** Images that the mirror handles. Names of other images are not advertised. */
  readonly filter: RegistryFilter
  /** Digests that are not advertised. Default: none. */
  readonly isPrivate?: (digest: string) => boolean
  /** How often everything is compared. Default: 9 minutes. Records do not expire meanwhile: the router renews them. */
  readonly refreshInterval?: Duration.Duration
}

/** Advertises the content of the `ContentStore` to the `Router`. */
export class StateTracker extends Context.Service<StateTracker, {
  /** Runs until interrupted. Never fails: it waits for a store or router that is away. */
  readonly run: Effect.Effect<never>
  /** The numbers of keys advertised now. */
  readonly snapshot: Effect.Effect<Snapshot>
}>()("@spegel-ts/state-tracker/StateTracker") {
  /** Builds at once, also while the store or the router is away. Nothing is advertised until `run` runs. */
  static readonly layer = (
    options: StateTrackerOptions
  ): Layer.Layer<StateTracker, never, ContentStore | Router> => Layer.effect(this, make(options))
}

/** Pause after a listing, as a multiple of its duration: listings take a fifth of the time at most. */
const listingRest = 4

const snapshotOf = ({ digests, registries }: Holdings["counts"]): Snapshot => ({
  tags: new Map([...registries].map(([registry, { tags }]) => [registry, tags])),
  images: new Map([...registries].map(([registry, { manifests }]) => [registry, manifests.size])),
  digests
})

const make = Effect.fnUntraced(function*(options: StateTrackerOptions) {
  const store = yield* ContentStore
  const { filter, refreshInterval = Duration.minutes(9) } = options
  const refreshMillis = Duration.toMillis(refreshInterval)
  const holdings = new Holdings(filter, options.isPrivate)
  let advertised: Snapshot = { tags: new Map(), images: new Map(), digests: 0 }
  yield* AdvertisedMetrics.publish(advertised)
  const advertiser = yield* Advertiser.make(
    holdings,
    Effect.suspend(() => {
      const before = advertised
      advertised = snapshotOf(holdings.counts)
      return AdvertisedMetrics.publish(advertised, before)
    })
  )

  /** Keeps older changes from being applied after a listing. */
  const oneAtATime = yield* Semaphore.make(1)
  let listAgainAt = yield* MonotonicTime.millis
  const compare = oneAtATime.withPermit(Effect.gen(function*() {
    const begun = yield* MonotonicTime.millis
    const names = yield* Stream.runCollect(store.names)
    const digests = yield* Stream.runCollect(store.digests)
    holdings.compare(names, digests)
    const ended = yield* MonotonicTime.millis
    listAgainAt = ended + (ended - begun) * listingRest
    yield* advertiser.wake
  }))
  const apply = (changes: ReadonlyArray<ContentChange>) =>
    oneAtATime.withPermit(Effect.suspend(() => {
      for (const change of changes) holdings.apply(change)
      return advertiser.wake
    }))

  const follow = store.changes.pipe(
    Stream.runForEachArray((changes) =>
      // The listing is newer than the changes that came with the loss.
      changes.some(({ _tag }) => _tag === "Resync")
        ? Effect.flatMap(MonotonicTime.millis, (now) => Effect.andThen(Effect.sleep(listAgainAt - now), compare))
        : apply(changes)
    )
  )

  /** When to compare everything again. A comparison that fails stays due. */
  let due = (yield* MonotonicTime.millis) + refreshMillis
  const refresh = Effect.gen(function*() {
    yield* Effect.sleep(due - (yield* MonotonicTime.millis))
    yield* compare
    due = (yield* MonotonicTime.millis) + refreshMillis
  }).pipe(Effect.forever)

  return StateTracker.of({
    run: Background.keepRunning("state tracker", follow).pipe(
      Effect.andThen(Background.keepRunning("comparison of everything", refresh)),
      Effect.andThen(Background.keepRunning("advertising", advertiser.run)),
      Effect.andThen(Effect.never),
      Effect.scoped
    ),
    snapshot: Effect.sync(() => advertised)
  })
})
