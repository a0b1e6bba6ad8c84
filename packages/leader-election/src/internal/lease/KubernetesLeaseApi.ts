/** One Lease of a Kubernetes API server, over its REST API. */
import * as ApiClient from "@spegel-ts/kubernetes/ApiClient"
import * as ClusterAccess from "@spegel-ts/kubernetes/ClusterAccess"
import { Duration, Effect, Option, Random, Scope, Stream } from "effect"
import type { KubernetesLeaseOptions } from "../../KubernetesLease.ts"
import { defaultTimes, type LeaseUnavailable } from "../../LeaderElection.ts"
import { type LeaseApi, LeaseConflict, WatchExpired } from "./LeaseApi.ts"
import * as LeaseResponses from "./LeaseResponses.ts"

/** Servers end a watch after this many seconds; a random time keeps those of many nodes apart. */
const watchSeconds = { from: 300, to: 600 }
/** A server that does not end a watch itself has this long beyond its time. */
const spareSeconds = 30

type Reach = <A, R>(
  use: (client: ApiClient.ApiClient) => Effect.Effect<
    A,
    ApiClient.ApiUnreachable | ClusterAccess.ClusterAccessInvalid,
    R
  >
) => Effect.Effect<A, LeaseUnavailable, R>

/** The client for the Lease. Access is looked for until it is found: a kubeconfig may come later than this program. */
const connect = Effect.fnUntraced(function*(options: Omit<KubernetesLeaseOptions, "identity">) {
  // Made now, so that it outlives an elector that is made after it and gives its Lease back at the end.
  const scope = yield* Effect.flatMap(Scope.Scope, Scope.fork)
  let connected: Option.Option<ApiClient.ApiClient> = Option.none()
  const client = Effect.suspend(() =>
    Option.isSome(connected)
      ? Effect.succeed(connected.value)
      : ClusterAccess.make(options).pipe(
        Effect.flatMap(ApiClient.make),
        Effect.provideService(Scope.Scope, scope),
        Effect.tap((client) =>
          Effect.sync(() => {
            connected = Option.some(client)
          })
        )
      )
  )
  const reach: Reach = (use) =>
    Effect.flatMap(client, use).pipe(Effect.mapError((error) =>
      error._tag === "ClusterAccessInvalid"
        ? LeaseResponses.unavailable(options, error.hint, LeaseResponses.refusedRetry)
        : LeaseResponses.unavailable(options, `the API server cannot be reached: ${error.reason}`)
    ))
  return reach
})

/** The Lease of that name. Its connections close with the scope. */
export const make = Effect.fnUntraced(function*(
  options: Omit<KubernetesLeaseOptions, "identity">
): Effect.fn.Return<LeaseApi, never, Scope.Scope> {
  const { name, namespace, times = defaultTimes } = options
  const leases = `/apis/coordination.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/leases`
  const selected = `${leases}?fieldSelector=${encodeURIComponent(`metadata.name=${name}`)}`
  // Two attempts fit into the time that a leader has to renew.
  const deadline = Duration.divideUnsafe(times.renewDeadline, 2)
  const reach = yield* connect(options)
  const request = (request: ApiClient.ApiRequest) => reach((client) => client.request(request, deadline))

  const write = Effect.fnUntraced(function*(verb: "create" | "update", written: ApiClient.ApiRequest) {
    const answer = yield* request(written)
    if (answer.status === 200 || answer.status === 201) return yield* LeaseResponses.written(options, answer)
    // An update of what was deleted meanwhile is a conflict like any other.
    if (answer.status === 409 || (answer.status === 404 && verb === "update")) return yield* new LeaseConflict()
    return yield* LeaseResponses.refusal(options, answer, verb)
  })

  return {
    label: LeaseResponses.labelOf(options),
    name,
    list: Effect.flatMap(request({ method: "GET", path: selected }), (answer) =>
      answer.status === 200
        ? LeaseResponses.listed(options, answer)
        : Effect.fail(LeaseResponses.refusal(options, answer, "list"))),
    create: (body) => write("create", { method: "POST", path: leases, body }),
    update: (body) => write("update", { method: "PUT", path: `${leases}/${encodeURIComponent(name)}`, body }),
    watch: Effect.fnUntraced(function*(resourceVersion) {
      const seconds = yield* Random.nextIntBetween(watchSeconds.from, watchSeconds.to)
      const query = `&watch=true&allowWatchBookmarks=true&timeoutSeconds=${seconds}&resourceVersion=`
      const path = `${selected}${query}${encodeURIComponent(resourceVersion)}`
      const answer = yield* reach((client) => client.lines({ method: "GET", path }, deadline))
      if (!Stream.isStream(answer)) {
        return yield* answer.status === 410
          ? new WatchExpired()
          : LeaseResponses.refusal(options, answer, "watch")
      }
      return answer.pipe(
        Stream.mapError((error) => LeaseResponses.unavailable(options, `the watch broke: ${error.reason}`)),
        Stream.filter((line) => line.trim() !== ""),
        Stream.mapEffect((line) => LeaseResponses.event(options, line)),
        Stream.interruptWhen(Effect.sleep(Duration.seconds(seconds + spareSeconds)))
      )
    })
  }
})
