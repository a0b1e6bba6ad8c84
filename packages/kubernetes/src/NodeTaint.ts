/**
 * Takes a taint off this node once the mirror can serve. A cluster that gives the taint to its new nodes keeps pods, and
 * with them pulls, away until then.
 */
import { Data, Duration, Effect, type Option, Schedule, Schema } from "effect"
import * as ApiClient from "./ApiClient.ts"
import * as ClusterAccess from "./ClusterAccess.ts"

/** The taint is still there. */
export class TaintKept extends Data.TaggedError("TaintKept")<{
  readonly node: string
  readonly taint: string
  readonly reason: string
}> {
  override get message() {
    return `the taint ${this.taint} stays on node ${this.node}: ${this.reason}`
  }
}

export interface NodeTaintOptions {
  /** Name of this node. */
  readonly node: string
  /** Key of the taint; its values and effects do not matter. */
  readonly taint: string
  /** How to reach the API server; none for this pod's service account. */
  readonly kubeconfig: Option.Option<string>
  readonly environment: NodeJS.ProcessEnv
  readonly ready: Effect.Effect<boolean>
}

const deadline = Duration.seconds(10)

/** Of a taint, whatever it has is given back. */
const Node = Schema.fromJsonString(Schema.Struct({
  metadata: Schema.Struct({ resourceVersion: Schema.String }),
  spec: Schema.Struct({ taints: Schema.optionalKey(Schema.Array(Schema.Record(Schema.String, Schema.Unknown))) })
}))

/** Takes it off; gives false where it was not there. A node that another has changed meanwhile is read again. */
const takeOff = Effect.fnUntraced(function*(client: ApiClient.ApiClient, { node, taint }: NodeTaintOptions) {
  const kept = (reason: string) => new TaintKept({ node, taint, reason })
  const request = (request: Omit<ApiClient.ApiRequest, "path">) =>
    client.request({ ...request, path: `/api/v1/nodes/${encodeURIComponent(node)}` }, deadline).pipe(
      Effect.mapError(({ message }) => kept(message)),
      Effect.filterOrFail(
        ({ status }) => status === 200,
        ({ body, status }) => kept(`the API server answered ${status} to ${request.method}: ${body.slice(0, 300)}`)
      )
    )
  const { metadata, spec: { taints = [] } } = yield* Schema.decodeEffect(Node)((yield* request({ method: "GET" })).body)
    .pipe(Effect.mapError(({ message }) => kept(`the answer is no Node: ${message}`)))
  const others = taints.filter(({ key }) => key !== taint)
  if (others.length === taints.length) return false
  // The version makes the server refuse, and not lose, what others have done to the taints since.
  const { resourceVersion } = metadata
  yield* request({ method: "PATCH", body: { metadata: { resourceVersion }, spec: { taints: others } } })
  return true
})

/** Waits until the mirror is ready, then takes the taint off. */
export const removeWhenReady = Effect.fn("NodeTaint.removeWhenReady")(function*(options: NodeTaintOptions) {
  const { node, ready, taint } = options
  yield* Effect.repeat(ready, { schedule: Schedule.spaced("200 millis"), until: (ready) => ready })
  const remove = Effect.gen(function*() {
    const access = yield* ClusterAccess.make(options)
    return yield* takeOff(yield* ApiClient.make(access), options)
  }).pipe(Effect.scoped)
  if (yield* remove) yield* Effect.logInfo("the node takes pods").pipe(Effect.annotateLogs({ node, taint }))
})
