/**
 * The Secret with the cluster key, for a cluster that has no other way to share one. It is created once, by whichever run comes
 * first, and never changed: to replace the key is for people (docs/kubernetes.md).
 */
import { generate, KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import * as ApiClient from "@spegel-ts/kubernetes/ApiClient"
import * as ClusterAccess from "@spegel-ts/kubernetes/ClusterAccess"
import * as Secret from "@spegel-ts/kubernetes/Secret"
import { Data, Duration, Effect, Option, Result, Schedule, Schema } from "effect"

/** The key of the Secret's data that has the cluster key file. */
export const dataKey = "key"

/** The Secret exists, and has no cluster key; a person has to put it right. The message has nothing of its values. */
export class KeySecretInvalid extends Data.TaggedError("KeySecretInvalid")<{
  readonly name: string
  readonly reason: string
}> {
  override get message() {
    return `the Secret ${this.name}: ${this.reason}. It was not changed: put its value ${dataKey} right, or delete it`
  }
}

/** The DaemonSet whose mirrors use the key could not be looked for. A later try may succeed. */
export class UseUnknown extends Data.TaggedError("UseUnknown")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** The Secret, how to reach its API server, and how long to try. */
export interface KeySecretOptions extends Secret.SecretName, ClusterAccess.AccessOptions {
  /** How long to try while the API server does not answer, or refuses. */
  readonly timeout: Duration.Duration
}

/** Pauses between two tries. */
const pauses = Schedule.min([Schedule.exponential("200 millis"), Schedule.spaced("5 seconds")])

/**
 * Runs `attempt` until it succeeds, fails for good or the time is over; then fails as the last try did. Refusals are tried again
 * too: the API server learns of a new Role only after a moment.
 */
const persist = Effect.fnUntraced(function*<A, E extends { readonly _tag: string; readonly message: string }>(
  { timeout, ...options }: KeySecretOptions,
  attempt: (client: ApiClient.ApiClient) => Effect.Effect<A, E>
) {
  const access = yield* ClusterAccess.make(options)
  let last: E | Secret.SecretUnavailable = new Secret.SecretUnavailable({
    name: `${options.namespace}/${options.name}`,
    reason: `no answer within ${Duration.format(timeout)}`
  })
  const tell = Effect.fnUntraced(function*(error: E) {
    if (error._tag !== "KeySecretInvalid" && error.message !== last.message) yield* Effect.logWarning(error.message)
    last = error
  })
  return yield* ApiClient.make(access).pipe(
    Effect.flatMap(attempt),
    Effect.scoped,
    Effect.tapError(tell),
    Effect.retry({ schedule: pauses, while: ({ _tag }) => _tag !== "KeySecretInvalid" }),
    Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.fail(last) })
  )
})

const check = ({ name, namespace }: KeySecretOptions, values: Readonly<Record<string, string>>) => {
  const invalid = (reason: string) => new KeySecretInvalid({ name: `${namespace}/${name}`, reason })
  const text = values[dataKey]
  if (text === undefined) return Effect.fail(invalid(`there is no value ${dataKey}`))
  return Result.match(KeyRing.parse(text), {
    onFailure: ({ message }) => Effect.fail(invalid(message)),
    onSuccess: () => Effect.void
  })
}

/** Creates the Secret with a new key, unless it exists; gives whether it was created. Fails if it exists without a key. */
export const ensure = Effect.fn("KeySecret.ensure")(
  function*(options: KeySecretOptions & { readonly labels: Readonly<Record<string, string>> }) {
    const values = { [dataKey]: `${generate()}\n` }
    return yield* persist(options, (client) =>
      Effect.gen(function*() {
        const found = yield* Secret.read(client, options)
        if (Option.isNone(found) && (yield* Secret.create(client, { ...options, values }))) return true
        const existing = Option.isSome(found) ? found : yield* Secret.read(client, options)
        if (Option.isNone(existing)) {
          const name = `${options.namespace}/${options.name}`
          return yield* new Secret.SecretUnavailable({ name, reason: "it is gone again" })
        }
        yield* check(options, existing.value)
        return false
      }))
  }
)

const DaemonSet = Schema.fromJsonString(Schema.Struct({
  metadata: Schema.Struct({ deletionTimestamp: Schema.optionalKey(Schema.String) })
}))

/** Whether a DaemonSet exists that is not about to go. */
const exists = Effect.fnUntraced(function*(client: ApiClient.ApiClient, namespace: string, daemonSet: string) {
  const path = `/apis/apps/v1/namespaces/${encodeURIComponent(namespace)}/daemonsets/${encodeURIComponent(daemonSet)}`
  const answer = yield* Effect.mapError(
    client.request({ method: "GET", path }, Duration.seconds(10)),
    ({ message }) => new UseUnknown({ reason: message })
  )
  if (answer.status === 404) return false
  if (answer.status !== 200) return yield* new UseUnknown({ reason: ApiClient.unexpected(answer, "GET") })
  const { metadata } = yield* Effect.mapError(
    Schema.decodeEffect(DaemonSet)(answer.body),
    ({ message }) => new UseUnknown({ reason: `the answer is not a DaemonSet: ${message}` })
  )
  return metadata.deletionTimestamp === undefined
})

/** Deletes the Secret, unless the DaemonSet exists whose mirrors need it; gives what became of it. */
export const remove = Effect.fn("KeySecret.remove")(
  (options: KeySecretOptions & { readonly daemonSet: string }) =>
    persist(options, (client) =>
      Effect.gen(function*() {
        if (yield* exists(client, options.namespace, options.daemonSet)) return "in use" as const
        return (yield* Secret.remove(client, options)) ? "removed" as const : "missing" as const
      }))
)
