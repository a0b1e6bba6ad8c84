/**
 * `LeaderElection` by a lease that the candidates of one process share: for tests, and for programs without Kubernetes. It
 * refuses a write whose `resourceVersion` is not the last one, as a Kubernetes API server does.
 */
import { Effect, Layer, Option, PubSub, Stream } from "effect"
import * as Elector from "./internal/elector/Elector.ts"
import * as Lease from "./internal/lease/Lease.ts"
import { type LeaseApi, LeaseConflict, type LeaseEvent } from "./internal/lease/LeaseApi.ts"
import { type CandidateOptions, defaultTimes, type ElectionTimesInvalid, LeaderElection } from "./LeaderElection.ts"

/** A shared lease. */
export interface MemoryLease {
  /** The server that the electors of its candidates use. */
  readonly api: LeaseApi
  /** The Lease as it was last written; none before the first write and after a removal. */
  readonly lease: Effect.Effect<Option.Option<Lease.Lease>>
  /** Deletes the Lease, as an administrator may. */
  readonly remove: Effect.Effect<void>
}

/** Makes one; `name` is what logs call it. */
export const make = Effect.fnUntraced(function*(name = "memory"): Effect.fn.Return<MemoryLease> {
  const events = yield* PubSub.unbounded<LeaseEvent>()
  let version = 1
  let stored: Option.Option<Lease.Lease> = Option.none()

  const store = Effect.fnUntraced(function*(json: Lease.Json) {
    version++
    const lease = yield* Effect.orDie(Lease.decode({
      ...json,
      metadata: { ...(json["metadata"] as Lease.Json), resourceVersion: String(version) }
    }))
    stored = Option.some(lease)
    yield* PubSub.publish(events, { _tag: "Changed", lease })
    return lease
  })
  const versionOf = (json: Lease.Json) => (json["metadata"] as Lease.Json)["resourceVersion"]

  const api: LeaseApi = {
    label: name,
    name,
    list: Effect.sync(() => ({ lease: stored, resourceVersion: String(version) })),
    create: (json) => Effect.suspend(() => Option.isSome(stored) ? Effect.fail(new LeaseConflict()) : store(json)),
    update: (json) =>
      Effect.suspend(() =>
        Option.exists(stored, ({ resourceVersion }) => resourceVersion === versionOf(json))
          ? store(json)
          : Effect.fail(new LeaseConflict())
      ),
    watch: Effect.fnUntraced(function*(resourceVersion) {
      const subscription = yield* PubSub.subscribe(events)
      const missed = Option.filter(stored, (lease) => Number(lease.resourceVersion) > Number(resourceVersion))
      const first = Option.map(missed, (lease): LeaseEvent => ({ _tag: "Changed", lease }))
      return Stream.concat(Stream.fromIterable(Option.toArray(first)), Stream.fromSubscription(subscription))
    })
  }
  const remove = Effect.gen(function*() {
    version++
    stored = Option.none()
    yield* PubSub.publish(events, { _tag: "Deleted", resourceVersion: String(version) })
  })
  return { api, remove, lease: Effect.sync(() => stored) }
})

/** A candidate for a shared lease. */
export interface MemoryLeaseOptions extends CandidateOptions {
  /** The lease that all candidates are given. */
  readonly lease: MemoryLease
}

/** A candidate. The lease is given back when the scope closes. */
export const layer = (
  { lease, ...candidate }: MemoryLeaseOptions
): Layer.Layer<LeaderElection, ElectionTimesInvalid> =>
  Layer.effect(LeaderElection, Elector.make({ times: defaultTimes, ...candidate, api: lease.api }))
