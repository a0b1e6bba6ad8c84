/** Asks the mirror on this node for what its debug page shows: what `status` and `lookup` have in common. */
import { Data, Duration, Effect, Runtime, Schema } from "effect"
import { Flag } from "effect/cli"
import * as ListenAddress from "../cli/ListenAddress.ts"
import * as HttpGet from "../cli/report/HttpGet.ts"
import { flagOnly, type Values } from "../cli/Setting.ts"
import { metricsAddr } from "../settings/SharedSettings.ts"

/** The mirror did not answer, or not with the view that was asked for. */
export class MirrorNotAsked extends Data.TaggedError("MirrorNotAsked")<{
  readonly url: string
  readonly reason: string
}> {
  /** Differs from 1, with which the mirror's answer is bad news. */
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

type DebugSettings = Values<typeof debugSettings>

const timeout = Duration.seconds(10)

/** Reads a view. `path` begins with a slash. */
export const get = <A, I>(
  { metricsAddr }: DebugSettings,
  path: string,
  schema: Schema.Codec<A, I>
): Effect.Effect<A, MirrorNotAsked> => {
  const url = `${ListenAddress.localUrl(metricsAddr)}${path}`
  const failed = (reason: string) => new MirrorNotAsked({ url, reason })
  return HttpGet.get(url, { isGood: (status) => status === 200, timeout }).pipe(
    Effect.mapError(({ reason }) => failed(reason)),
    Effect.flatMap(({ body }) =>
      Effect.mapError(
        Schema.decodeEffect(Schema.fromJsonString(schema))(body),
        () => failed("the answer is not that of this version of spegel")
      )
    )
  )
}
