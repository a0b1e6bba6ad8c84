/**
 * Removes a taint from this node once the node is ready for pods. A cluster that gives the taint to its new nodes keeps pods
 * away until then, and with them their pulls.
 */
import { Data, Duration, Effect, Schedule, Schema } from "effect"
import * as ApiClient from "./ApiClient.ts"
import * as ClusterAccess from "./ClusterAccess.ts"

/** The taint could not be removed. A later try may succeed. */
export class TaintKept extends Data.TaggedError("TaintKept")<{
  readonly node: string
  readonly taint: string
  readonly reason: string
}> {
  override get message() {
    return `the taint ${this.taint} stays on node ${this.node}: ${this.reason}`
  }
}

/** The taint to remove, and the condition for it. */
export interface NodeTaintOptions extends ClusterAccess.AccessOptions {
  /** Name of this node. */
  readonly node: string
  /** Key of the taint; its values and effects do not matter. */
  readonly taint: string
  /** Whether the node may take pods; asked every 200 ms. */
  readonly ready: Effect.Effect<boolean>
}

const deadline = Duration.seconds(10)

/** Taints are kept as they are, since a patch must give all of them back. */
const Node = Schema.fromJsonString(Schema.Struct({
  metadata: Schema.Struct({ resourceVersion: Schema.String }),
  spec: Schema.Struct({ taints: Schema.optionalKey(Schema.Array(Schema.Record(Schema.String, Schema.Unknown))) })
}))

/** Whether the taint was there, and is removed. Fails if the node was changed between the read and the patch. */
const remove = Effect.fnUntraced(function*(client: ApiClient.ApiClient, { node, taint }: NodeTaintOptions) {
  const kept = (reason: string) => new TaintKept({ node, taint, reason })
  const request = (request: Omit<ApiClient.ApiRequest, "path">) =>
    client.request({ ...request, path: `/api/v1/nodes/${encodeURIComponent(node)}` }, deadline).pipe(
      Effect.mapError(({ message }) => kept(message)),
      Effect.filterOrFail(
        ({ status }) => status === 200,
        (answer) => kept(ApiClient.unexpected(answer, request.method))
      )
    )
  const { metadata, spec: { taints = [] } } = yield* Schema.decodeEffect(Node)((yield* request({ method: "GET" })).body)
    .pipe(Effect.mapError(({ message }) => kept(`the answer is not a Node: ${message}`)))
  const others = taints.filter(({ key }) => key !== taint)
  if (others.length === taints.length) return false
  // With the version the server refuses the patch, rather than undo what others have done to the taints since.
  const { resourceVersion } = metadata
  yield* request({ method: "PATCH", body: { metadata: { resourceVersion }, spec: { taints: others } } })
  return true
})

/** Waits for `ready`, then removes the taint. Does nothing more if the node does not have it. */
export const removeWhenReady = Effect.fn("NodeTaint.removeWhenReady")(function*(options: NodeTaintOptions) {
  const { node, ready, taint } = options
  yield* Effect.repeat(ready, { schedule: Schedule.spaced("200 millis"), until: (ready) => ready })
  const removed = ClusterAccess.make(options).pipe(
    Effect.flatMap(ApiClient.make),
    Effect.flatMap((client) => remove(client, options)),
    Effect.scoped
  )
  if (yield* removed) yield* Effect.logInfo("the node accepts pods").pipe(Effect.annotateLogs({ node, taint }))
})
