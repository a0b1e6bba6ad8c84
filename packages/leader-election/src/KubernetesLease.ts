/** `LeaderElection` by a Lease of a Kubernetes API server, over its REST API. Load this only where it is used. */
import * as ApiClient from "@spegel-ts/kubernetes/ApiClient"
import * as ClusterAccess from "@spegel-ts/kubernetes/ClusterAccess"
import type { Environment } from "@spegel-ts/kubernetes/ExecCredential"
import { Duration, Effect, Layer, Option, Random, Schema, Scope, Stream } from "effect"
import * as Elector from "./internal/Elector.ts"
import * as Lease from "./internal/Lease.ts"
import { type LeaseApi, LeaseConflict, type LeaseEvent, WatchExpired } from "./internal/LeaseApi.ts"
import { defaultTimes, type ElectionTimes, type Identity, LeaderElection, LeaseUnavailable } from "./LeaderElection.ts"

export interface KubernetesLeaseOptions {
  readonly namespace: string
  readonly name: string
  /** Path of a kubeconfig; none is the service account of this pod. */
  readonly kubeconfig: Option.Option<string>
  /** The program's environment: names the API server of a pod's cluster, and is given to credential plugins. */
  readonly environment: Environment
  /** Directory of the service account's files, where it is not the usual one. */
  readonly serviceAccount?: string
  readonly times?: ElectionTimes
}

const ApiStatus = Schema.fromJsonString(Schema.Struct({
  code: Schema.optionalKey(Schema.Finite),
  message: Schema.optionalKey(Schema.String)
}))
const decodeStatus = Schema.decodeOption(ApiStatus)
const List = Schema.fromJsonString(Schema.Struct({
  metadata: Schema.Struct({ resourceVersion: Schema.String }),
  items: Schema.Array(Schema.Unknown)
}))
const decodeList = Schema.decodeEffect(List)
const Json = Schema.fromJsonString(Schema.Unknown)
const decodeJson = Schema.decodeEffect(Json)
const Event = Schema.fromJsonString(Schema.Struct({
  type: Schema.String,
  object: Schema.Struct({
    code: Schema.optionalKey(Schema.Finite),
    message: Schema.optionalKey(Schema.String),
    metadata: Schema.optionalKey(Schema.Struct({ resourceVersion: Schema.optionalKey(Schema.String) }))
  })
}))
const decodeEvent = Schema.decodeEffect(Event)

/** Servers end a watch after so many seconds; a random time keeps those of many nodes apart. */
const watchSeconds = { from: 300, to: 600 }
const maxRetryAfter = Duration.seconds(60)
/** What only a person can mend is not asked for often. */
const refusedRetry = Duration.seconds(20)

const retryAfterOf = ({ headers }: ApiClient.Answer): Duration.Duration | undefined => {
  const seconds = Number(headers["retry-after"])
  return seconds > 0 ? Duration.min(Duration.seconds(seconds), maxRetryAfter) : undefined
}

/** The Lease of that name, as requests to an API server. */
export const api = Effect.fnUntraced(function*(options: KubernetesLeaseOptions) {
  const { environment, kubeconfig, name, namespace, serviceAccount, times = defaultTimes } = options
  const label = `${namespace}/${name}`
  const leases = `/apis/coordination.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/leases`
  const selected = `${leases}?fieldSelector=${encodeURIComponent(`metadata.name=${name}`)}`
  // Two attempts fit into the time that a leader has to renew.
  const deadline = Duration.divideUnsafe(times.renewDeadline, 2)
  // Made now, so that it outlives an elector that is made after it and gives its lease back at the end.
  const scope = yield* Effect.flatMap(Scope.Scope, Scope.fork)

  const unavailable = (hint: string, retryAfter?: Duration.Duration) =>
    new LeaseUnavailable({ lease: label, hint, retryAfter })
  const unusable = () => unavailable("the API server's answer is no Lease; is this a Kubernetes API server?")

  let connected: Option.Option<ApiClient.ApiClient> = Option.none()
  /** Looked for again until it is found: a kubeconfig may come later than this program. */
  const client = Effect.suspend(() => {
    if (Option.isSome(connected)) return Effect.succeed(connected.value)
    const access = Option.match(kubeconfig, {
      onNone: () => ClusterAccess.inCluster({ environment, directory: serviceAccount }),
      onSome: (path) => ClusterAccess.fromKubeconfig({ path, environment })
    })
    return Effect.flatMap(access, ApiClient.make).pipe(
      Effect.provideService(Scope.Scope, scope),
      Effect.tap((client) =>
        Effect.sync(() => {
          connected = Option.some(client)
        })
      )
    )
  })
  const reach = <A, R>(
    use: (
      client: ApiClient.ApiClient
    ) => Effect.Effect<A, ApiClient.ApiUnreachable | ClusterAccess.ClusterAccessInvalid, R>
  ): Effect.Effect<A, LeaseUnavailable, R> =>
    Effect.flatMap(client, use).pipe(Effect.mapError((error) =>
      error._tag === "ClusterAccessInvalid"
        ? unavailable(error.hint, refusedRetry)
        : unavailable(`the API server cannot be reached: ${error.reason}`)
    ))

  /** What an answer that is no success means to whoever reads the log. */
  const refusal = (answer: ApiClient.Answer, verb: string): LeaseUnavailable => {
    const status = Option.flatMap(decodeStatus(answer.body), ({ message }) => Option.fromUndefinedOr(message))
    const said = Option.match(status, { onNone: () => "", onSome: (message) => ` (${printable(message)})` })
    switch (answer.status) {
      case 401:
        return unavailable(
          `the API server does not accept this node's credentials; check the service account or the kubeconfig's user${said}`,
          refusedRetry
        )
      case 403:
        return unavailable(
          `the API server refuses to ${verb} it; grant this node's account in namespace ${namespace} the verb create on ` +
            `leases.coordination.k8s.io, and list, watch and update on those with resourceNames [${name}]${said}`,
          refusedRetry
        )
      case 404:
        return unavailable(
          verb === "create"
            ? `namespace ${namespace} does not exist; create it or check --leader-election-namespace${said}`
            : `the API server has no leases.coordination.k8s.io${said}`,
          refusedRetry
        )
      default:
        return unavailable(`the API server answers ${answer.status} to ${verb}${said}`, retryAfterOf(answer))
    }
  }

  const leaseOf = (json: unknown) => Effect.mapError(Lease.decode(json), unusable)
  const leaseOfText = (text: string) => Effect.flatMap(Effect.mapError(decodeJson(text), unusable), leaseOf)

  const write = Effect.fnUntraced(function*(verb: "create" | "update", request: ApiClient.ApiRequest) {
    const answer = yield* reach((client) => client.request(request, deadline))
    if (answer.status === 200 || answer.status === 201) return yield* leaseOfText(answer.body)
    // An update of what was deleted meanwhile is a conflict like any other.
    if (answer.status === 409 || (answer.status === 404 && verb === "update")) return yield* new LeaseConflict()
    return yield* refusal(answer, verb)
  })

  const eventOf = Effect.fnUntraced(function*(line: string) {
    const { object, type } = yield* Effect.mapError(decodeEvent(line), unusable)
    if (type === "ERROR") {
      return yield* object.code === 410
        ? new WatchExpired()
        : unavailable(`the API server ends the watch: ${printable(object.message ?? "")}`)
    }
    if (type === "ADDED" || type === "MODIFIED") {
      const { object } = JSON.parse(line) as { readonly object: unknown }
      return { _tag: "Changed", lease: yield* leaseOf(object) } as const
    }
    const resourceVersion = object.metadata?.resourceVersion
    if (resourceVersion === undefined) return yield* unusable()
    return { _tag: type === "DELETED" ? "Deleted" : "Bookmark", resourceVersion } as const
  })

  const result: LeaseApi = {
    label,
    name,
    list: Effect.gen(function*() {
      const answer = yield* reach((client) => client.request({ method: "GET", path: selected }, deadline))
      if (answer.status !== 200) return yield* refusal(answer, "list")
      const { items, metadata } = yield* Effect.mapError(decodeList(answer.body), unusable)
      const found = yield* Effect.forEach(items, leaseOf)
      return {
        lease: Option.fromUndefinedOr(found.find((lease) => lease.name === name)),
        resourceVersion: metadata.resourceVersion
      }
    }),
    create: (body) => write("create", { method: "POST", path: leases, body }),
    update: (body) => write("update", { method: "PUT", path: `${leases}/${encodeURIComponent(name)}`, body }),
    watch: Effect.fnUntraced(function*(resourceVersion) {
      const seconds = yield* Random.nextIntBetween(watchSeconds.from, watchSeconds.to)
      const query = `&watch=true&allowWatchBookmarks=true&timeoutSeconds=${seconds}&resourceVersion=`
      const answer = yield* reach((client) =>
        client.lines({ method: "GET", path: `${selected}${query}${encodeURIComponent(resourceVersion)}` }, deadline)
      )
      if (!Stream.isStream(answer)) {
        return yield* answer.status === 410 ? new WatchExpired() : refusal(answer, "watch")
      }
      return answer.pipe(
        Stream.mapError((error) => unavailable(`the watch broke: ${error.reason}`)),
        Stream.filter((line) => line.trim() !== ""),
        Stream.mapEffect((line): Effect.Effect<LeaseEvent, WatchExpired | LeaseUnavailable> => eventOf(line)),
        Stream.interruptWhen(Effect.sleep(Duration.seconds(seconds + 30)))
      )
    })
  }
  return result
})

/** What a server says, fit for one line of a log. */
const printable = (message: string): string => message.replaceAll(/[^\x20-\x7e]+/g, " ").slice(0, 300)

/** A candidate. It comes up without the API server, and says what is missing in its log. */
export const layer = (
  options: KubernetesLeaseOptions & { readonly identity: Identity }
): Layer.Layer<LeaderElection, Elector.ElectionTimesInvalid> =>
  Layer.effect(
    LeaderElection,
    Effect.flatMap(api(options), (api) =>
      Elector.make({ api, identity: options.identity, times: options.times ?? defaultTimes }))
  )
