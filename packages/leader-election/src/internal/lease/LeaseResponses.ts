/** Reads an API server's answers about a Lease: Leases, events of a watch, and refusals with what to do about them. */
import type { Answer } from "@spegel-ts/kubernetes/ApiClient"
import { Duration, Effect, Option, Schema } from "effect"
import { LeaseUnavailable } from "../../LeaderElection.ts"
import * as Lease from "./Lease.ts"
import { type LeaseEvent, WatchExpired } from "./LeaseApi.ts"

/** The Lease that requests are about. */
export interface LeaseName {
  readonly namespace: string
  readonly name: string
}

export type Verb = "create" | "list" | "update" | "watch"

const Status = Schema.fromJsonString(Schema.Struct({ message: Schema.optionalKey(Schema.String) }))
const decodeStatus = Schema.decodeOption(Status)
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

const maxRetryAfter = Duration.seconds(60)
/** The pause after a refusal that only a person can mend. */
export const refusedRetry = Duration.seconds(20)

export const labelOf = ({ name, namespace }: LeaseName): string => `${namespace}/${name}`

export const unavailable = (lease: LeaseName, hint: string, retryAfter?: Duration.Duration): LeaseUnavailable =>
  new LeaseUnavailable({ lease: labelOf(lease), hint, retryAfter })

const unusable = (lease: LeaseName) =>
  unavailable(lease, "the API server's answer is not a Lease; is this a Kubernetes API server?")

const retryAfterOf = ({ headers }: Answer): Duration.Duration | undefined => {
  const seconds = Number(headers["retry-after"])
  return seconds > 0 ? Duration.min(Duration.seconds(seconds), maxRetryAfter) : undefined
}

/** A server's message, fit for one line of a log. */
const printable = (message: string): string => message.replaceAll(/[^\x20-\x7e]+/g, " ").slice(0, 300)

/** The error of an answer that is not a success. */
export const refusal = (lease: LeaseName, answer: Answer, verb: Verb): LeaseUnavailable => {
  const said = decodeStatus(answer.body).pipe(
    Option.flatMapNullishOr(({ message }) => message),
    Option.match({ onNone: () => "", onSome: (message) => ` (${printable(message)})` })
  )
  const { name, namespace } = lease
  switch (answer.status) {
    case 401:
      return unavailable(
        lease,
        `the API server does not accept this node's credentials; check the service account or the kubeconfig's user${said}`,
        refusedRetry
      )
    case 403:
      return unavailable(
        lease,
        `the API server refuses to ${verb} it; grant this node's account in namespace ${namespace} the verb create on ` +
          `leases.coordination.k8s.io, and list, watch and update on those with resourceNames [${name}]${said}`,
        refusedRetry
      )
    case 404:
      return unavailable(
        lease,
        verb === "create"
          ? `namespace ${namespace} does not exist; create it, or use one that does${said}`
          : `the API server has no leases.coordination.k8s.io${said}`,
        refusedRetry
      )
    default:
      return unavailable(lease, `the API server answers ${answer.status} to ${verb}${said}`, retryAfterOf(answer))
  }
}

const decodeLease = (lease: LeaseName, json: unknown) => Effect.mapError(Lease.decode(json), () => unusable(lease))

/** The Lease that a write answers. */
export const written = (lease: LeaseName, { body }: Answer): Effect.Effect<Lease.Lease, LeaseUnavailable> =>
  decodeJson(body).pipe(
    Effect.mapError(() => unusable(lease)),
    Effect.flatMap((json) => decodeLease(lease, json))
  )

/** The Lease of a list, if there is one, and the version from which to watch. */
export const listed = Effect.fnUntraced(function*(lease: LeaseName, { body }: Answer) {
  const { items, metadata } = yield* Effect.mapError(decodeList(body), () => unusable(lease))
  const found = yield* Effect.forEach(items, (item) => decodeLease(lease, item))
  return {
    lease: Option.fromUndefinedOr(found.find(({ name }) => name === lease.name)),
    resourceVersion: metadata.resourceVersion
  }
})

/** The event of one line of a watch. */
export const event = Effect.fnUntraced(function*(
  lease: LeaseName,
  line: string
): Effect.fn.Return<LeaseEvent, WatchExpired | LeaseUnavailable> {
  const { object, type } = yield* Effect.mapError(decodeEvent(line), () => unusable(lease))
  if (type === "ERROR") {
    return yield* object.code === 410
      ? new WatchExpired()
      : unavailable(lease, `the API server ends the watch: ${printable(object.message ?? "")}`)
  }
  if (type === "ADDED" || type === "MODIFIED") {
    const { object } = JSON.parse(line) as { readonly object: unknown }
    return { _tag: "Changed", lease: yield* decodeLease(lease, object) }
  }
  const resourceVersion = object.metadata?.resourceVersion
  if (resourceVersion === undefined) return yield* unusable(lease)
  return { _tag: type === "DELETED" ? "Deleted" : "Bookmark", resourceVersion }
})
