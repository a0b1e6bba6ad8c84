/**
 * Credential plugins of a kubeconfig: a command that prints an `ExecCredential`, as in Kubernetes' client authentication
 * API (`client.authentication.k8s.io/v1` and `v1beta1`). It runs without a shell, and its credential is kept until it expires.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { Clock, Data, Effect, Option, Schema } from "effect"
import { execFile } from "node:child_process"
import { resolve } from "node:path"
import { promisify } from "node:util"
import type { Environment } from "../../ClusterAccess.ts"

const text = Schema.optionalKey(Schema.NullOr(Schema.String))

/** The `exec` of a kubeconfig's user. */
export const Plugin = Schema.Struct({
  apiVersion: Schema.Literals(["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"]),
  command: Schema.NonEmptyString,
  args: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.String))),
  env: Schema.optionalKey(
    Schema.NullOr(Schema.Array(Schema.Struct({ name: Schema.String, value: Schema.String })))
  ),
  interactiveMode: text,
  provideClusterInfo: Schema.optionalKey(Schema.NullOr(Schema.Boolean))
})
export type Plugin = typeof Plugin.Type

const Status = Schema.Struct({
  token: text,
  clientCertificateData: text,
  clientKeyData: text,
  expirationTimestamp: text
})
const decode = Schema.decodeEffect(Schema.fromJsonString(Schema.Struct({ status: Status })))

/** The plugin gave no credential. The next request runs it again. */
export class PluginFailed extends Data.TaggedError("PluginFailed")<{
  readonly command: string
  readonly reason: string
}> {
  override get message() {
    return `the credential plugin ${this.command} ${this.reason}`
  }
}

const run = promisify(execFile)
const deadlineMillis = 20_000
const maxOutputBytes = 256 * 1024
/** A credential is not used in its last seconds: a request would arrive after it expired. */
const spareMillis = 10_000

/** The plugin's credential. Evaluating it runs the plugin, unless the last credential is still good. */
export const make = (plugin: Plugin, options: {
  readonly environment: Environment
  /** A command with a slash in it is relative to the kubeconfig. */
  readonly directory: string
  /** The kubeconfig's cluster, which is passed to plugins that ask for it. */
  readonly cluster: unknown
}) => {
  const command = plugin.command.includes("/") ? resolve(options.directory, plugin.command) : plugin.command
  const failed = (reason: string) => new PluginFailed({ command, reason })
  const request = {
    apiVersion: plugin.apiVersion,
    kind: "ExecCredential",
    spec: { interactive: false, ...(plugin.provideClusterInfo === true ? { cluster: options.cluster } : {}) }
  }
  const environment = {
    ...options.environment,
    ...Object.fromEntries((plugin.env ?? []).map(({ name, value }) => [name, value])),
    KUBERNETES_EXEC_INFO: JSON.stringify(request)
  }
  /** The last credential, and until when it is used: milliseconds of the monotonic clock. */
  let kept: Option.Option<{ readonly status: typeof Status.Type; readonly until: number }> = Option.none()

  return Effect.gen(function*() {
    if (plugin.interactiveMode === "Always") return yield* failed("needs a terminal, and this program has none")
    if (Option.isSome(kept) && (yield* MonotonicTime.millis) < kept.value.until) return kept.value.status
    const { stdout } = yield* Effect.tryPromise({
      try: (signal) =>
        run(command, plugin.args ?? [], {
          env: environment,
          maxBuffer: maxOutputBytes,
          timeout: deadlineMillis,
          signal
        }),
      // Its output may be a secret: only its exit code is reported.
      catch: (cause) => {
        const { code, killed } = cause as { readonly code?: unknown; readonly killed?: boolean }
        return failed(killed === true ? `took longer than ${deadlineMillis / 1000} s` : `failed (${String(code)})`)
      }
    })
    const { status } = yield* Effect.mapError(decode(stdout), () => failed("printed no ExecCredential"))
    const expires = Date.parse(status.expirationTimestamp ?? "")
    // The remaining life is counted on the monotonic clock: the wall clock may be set meanwhile.
    const left = Number.isNaN(expires) ? Infinity : expires - spareMillis - (yield* Clock.currentTimeMillis)
    kept = Option.some({ status, until: (yield* MonotonicTime.millis) + left })
    return status
  })
}
