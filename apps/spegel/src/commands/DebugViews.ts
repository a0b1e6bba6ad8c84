/** Asks the mirror on this node for what its debug page shows: what `status` and `lookup` have in common. */
import { Data, Effect, Option, Runtime, Schema } from "effect"
import { Flag } from "effect/cli"
import { isIPv6 } from "node:net"
import type { ListenAddress } from "../cli/ListenAddress.ts"
import { flagOnly, type Values } from "../cli/Setting.ts"
import { metricsAddr } from "../settings/SharedSettings.ts"

/** The mirror did not answer, or not with the view that was asked for. */
export class MirrorNotAsked extends Data.TaggedError("MirrorNotAsked")<{
  readonly url: string
  readonly reason: string
}> {
  /** Unlike an answer that is bad news. */
  override readonly [Runtime.errorExitCode] = 3
  override get message() {
    return `${this.url}: ${this.reason}; is the mirror running on this node, with --debug-web-enabled and this --metrics-addr?`
  }
}

export const debugSettings = {
  metricsAddr: metricsAddr("Metrics address of the mirror on this node"),
  output: flagOnly({
    description: "Output format",
    fallback: "text",
    metavar: "text|json",
    flag: (name) => Flag.Literals(name, ["text", "json"])
  })
}

export type DebugSettings = Values<typeof debugSettings>

const timeout = "10 seconds"

/** An address of all interfaces is that of this host, too. */
const originOf = ({ host, port }: ListenAddress): string => {
  const named = Option.getOrElse(host, () => "127.0.0.1")
  const address = named === "0.0.0.0" ? "127.0.0.1" : named === "::" ? "::1" : named
  return `http://${isIPv6(address) ? `[${address}]` : address}:${port}`
}

const reasonOf = (cause: unknown): string => {
  const { cause: inner, message } = cause as Error
  return inner instanceof Error ? `${message}: ${inner.message}` : message
}

/** Reads a view. `path` begins with a slash. */
export const get = <A, I>(
  { metricsAddr }: DebugSettings,
  path: string,
  schema: Schema.Codec<A, I>
): Effect.Effect<A, MirrorNotAsked> => {
  const url = `${originOf(metricsAddr)}${path}`
  const failed = (reason: string) => new MirrorNotAsked({ url, reason })
  return Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(url, { signal, redirect: "error" })
      return { status: response.status, body: await response.text() }
    },
    catch: (cause) => failed(reasonOf(cause))
  }).pipe(
    Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.fail(failed("no answer within 10 s")) }),
    Effect.filterOrFail(
      ({ status }) => status === 200,
      ({ body, status }) => failed(`answered ${status}: ${body.slice(0, 300)}`)
    ),
    Effect.flatMap(({ body }) =>
      Effect.mapError(
        Schema.decodeEffect(Schema.fromJsonString(schema))(body),
        () => failed("the answer is not that of this version of spegel")
      )
    )
  )
}
