/** A lease that candidates of one process share: for tests, and for programs that run without Kubernetes. */
import { Effect, Layer, Option, PubSub, Stream } from "effect"
import * as Elector from "./internal/Elector.ts"
import * as Lease from "./internal/Lease.ts"
import { type LeaseApi, LeaseConflict, type LeaseEvent } from "./internal/LeaseApi.ts"
import { defaultTimes, type ElectionTimes, type Identity, LeaderElection } from "./LeaderElection.ts"

/** A server with one lease. It refuses a write whose resourceVersion is not the last one, as the API machinery does. */
export const make = (name = "memory") =>
  Effect.gen(function*() {
    const events = yield* PubSub.unbounded<LeaseEvent>()
    let version = 1
    let stored: Option.Option<Lease.Lease> = Option.none()

    const store = (json: Lease.Json) =>
      Effect.gen(function*() {
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
      watch: (resourceVersion) =>
        Effect.gen(function*() {
          const subscription = yield* PubSub.subscribe(events)
          const missed = Option.filter(stored, (lease) => Number(lease.resourceVersion) > Number(resourceVersion))
          const first = Option.map(missed, (lease): LeaseEvent => ({ _tag: "Changed", lease }))
          return Stream.concat(
            Stream.fromIterable(Option.toArray(first)),
            Stream.fromSubscription(subscription)
          )
        })
    }
    const remove = Effect.gen(function*() {
      version++
      stored = Option.none()
      yield* PubSub.publish(events, { _tag: "Deleted", resourceVersion: String(version) })
    })
    return { api, remove, lease: Effect.sync(() => stored) }
  })

/** A candidate for the lease of `api`. */
export const layer = (options: {
  readonly api: LeaseApi
  readonly identity: Identity
  readonly times?: ElectionTimes
}): Layer.Layer<LeaderElection, Elector.ElectionTimesInvalid> =>
  Layer.effect(LeaderElection, Elector.make({ times: defaultTimes, ...options }))
