/**
 * Keeps what is advertised equal to what is held: everything on start, then each change as it happens, withdrawn when
 * it is deleted, compared again as a whole before records could expire.
 */
import * as Background from "@spegel-ts/background/Background"
import { ContentStore, type StoreUnavailable } from "@spegel-ts/content/ContentStore"
import * as Reference from "@spegel-ts/oci/Reference"
import type { RegistryFilter } from "@spegel-ts/oci/RegistryFilter"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router, type RouterNotReady } from "@spegel-ts/router/Router"
import { Clock, Context, Duration, Effect, Layer, Metric, Schedule, Stream } from "effect"

/** What is advertised now, by registry host. Digests belong to no registry. */
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
  /** How often everything is compared and handed to the router again. Default 9 minutes: records live for 10. */
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

/** Changes of this long are handed to the router together. */
const batchWindow = Duration.millis(50)
const maxBatch = 1000

/** A router joins its network in its own time. */
const untilReady = Schedule.jittered(Schedule.min([Schedule.exponential("200 millis"), Schedule.spaced("10 seconds")]))

const advertisedImages = Metric.gauge("spegel_advertised_images", { description: "Images advertised" })
const advertisedTags = Metric.gauge("spegel_advertised_image_tags", { description: "Image names advertised" })
const advertisedDigests = Metric.gauge("spegel_advertised_image_digests", {
  description: "Images advertised by digest"
})
const advertisedContent = Metric.gauge("spegel_advertised_content_digests", {
  description: "Digests advertised; they belong to no registry"
})
const advertisedKeys = Metric.gauge("spegel_advertised_keys", { description: "Keys advertised: names and digests" })

const make = Effect.fnUntraced(function*(options: StateTrackerOptions) {
  const store = yield* ContentStore
  const router = yield* Router
  const { filter, refreshInterval = Duration.minutes(9) } = options

  /** Advertised keys; a name's key with its registry and the manifest that it points to. */
  const names = new Map<string, { readonly registry: string; readonly digest: string }>()
  const digests = new Set<string>()
  const registriesSeen = new Set<string>([""])
  let waiting = false

  const held = Effect.gen(function*() {
    const heldNames = (yield* Stream.runCollect(store.names)).filter(({ reference }) => filter(reference))
    const heldDigests = yield* Stream.runCollect(store.digests)
    return { heldNames, heldDigests: new Set<string>(heldDigests) }
  })

  /** Brings the router to what the store holds now; with `all` it is handed every key, not just the new ones. */
  const reconcile = Effect.fnUntraced(function*(all: boolean) {
    const { heldDigests, heldNames } = yield* held
    const heldKeys = new Set(heldNames.map(({ reference }) => Reference.name(reference)))
    const gone = [
      ...[...names.keys()].filter((key) => !heldKeys.has(key)),
      ...[...digests].filter((digest) => !heldDigests.has(digest))
    ]
    const fresh = [...heldKeys, ...heldDigests].filter((key) => all || (!names.has(key) && !digests.has(key)))
    yield* router.withdraw(gone.map(ContentKey.make))
    yield* router.advertise(fresh.map(ContentKey.make))
    // Only now: what could not be handed over is still to be.
    names.clear()
    digests.clear()
    for (const { digest, reference } of heldNames) {
      names.set(Reference.name(reference), { registry: reference.registry, digest })
    }
    for (const digest of heldDigests) digests.add(digest)
    yield* report
  })

  const snapshot = Effect.sync((): Snapshot => {
    const tags = new Map<string, number>()
    const manifests = new Map<string, Set<string>>()
    for (const { digest, registry } of names.values()) {
      tags.set(registry, (tags.get(registry) ?? 0) + 1)
      manifests.set(registry, (manifests.get(registry) ?? new Set()).add(digest))
    }
    const images = new Map([...manifests].map(([registry, of]) => [registry, of.size]))
    return { tags, images, digests: digests.size }
  })

  const report = Effect.gen(function*() {
    const current = yield* snapshot
    for (const registry of current.tags.keys()) registriesSeen.add(registry)
    // A registry whose last image has gone is reported as 0, not left at its last value.
    yield* Effect.forEach(registriesSeen, (registry) => {
      const tags = current.tags.get(registry) ?? 0
      const images = current.images.get(registry) ?? 0
      const content = registry === "" ? current.digests : 0
      const values = [
        [advertisedImages, images],
        [advertisedTags, tags],
        [advertisedDigests, images],
        [advertisedContent, content],
        [advertisedKeys, tags + content]
      ] as const
      return Effect.forEach(
        values,
        ([metric, value]) => Metric.update(Metric.withAttributes(metric, { registry }), value),
        { discard: true }
      )
    }, { discard: true })
  })

  yield* report

  const sayThatItWaits = ({ message }: RouterNotReady) =>
    Effect.suspend(() => {
      if (waiting) return Effect.void
      waiting = true
      return Effect.logInfo(`${message}: advertising waits`)
    })
  const whenReady = (effect: Effect.Effect<void, StoreUnavailable | RouterNotReady>) =>
    effect.pipe(
      Effect.tapErrorTag("RouterNotReady", sayThatItWaits),
      Effect.retry({ schedule: untilReady, while: ({ _tag }) => _tag === "RouterNotReady" }),
      Effect.andThen(Effect.sync(() => {
        waiting = false
      }))
    )

  /** One batch of changes is one comparison: listing is cheap, and misses nothing. */
  const follow = store.changes.pipe(
    Stream.groupedWithin(maxBatch, batchWindow),
    Stream.runForEach(() => whenReady(reconcile(false)))
  )

  const monotonic = Effect.map(Clock.monotonicTimeNanos, Duration.nanos)
  const started = yield* monotonic
  /** When everything is handed over again; where that fails, it is due until it has succeeded. */
  let due = Duration.sum(started, refreshInterval)
  const refresh = Effect.gen(function*() {
    yield* Effect.sleep(Duration.subtract(due, yield* monotonic))
    yield* whenReady(reconcile(true))
    due = Duration.sum(yield* monotonic, refreshInterval)
  }).pipe(Effect.forever)

  return StateTracker.of({
    run: Background.keepRunning("state tracker", follow).pipe(
      Effect.andThen(Background.keepRunning("refresh of records", refresh)),
      Effect.andThen(Effect.never),
      Effect.scoped
    ),
    snapshot
  })
})
