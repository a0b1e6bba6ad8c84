/** Reads a label of a node, such as its zone. */
import { Data, type Duration, Effect, Option, Schema } from "effect"
import * as ApiClient from "./ApiClient.ts"
import * as ClusterAccess from "./ClusterAccess.ts"

/** The node could not be read. A later try may succeed. */
export class NodeUnreadable extends Data.TaggedError("NodeUnreadable")<{
  readonly node: string
  readonly reason: string
}> {
  override get message() {
    return `the labels of node ${this.node} cannot be read: ${this.reason}`
  }
}

/** The label to read. */
export interface NodeLabelOptions extends ClusterAccess.AccessOptions {
  readonly node: string
  readonly label: string
  /** How long the API server may take. */
  readonly deadline: Duration.Duration
}

const Node = Schema.fromJsonString(Schema.Struct({
  metadata: Schema.Struct({ labels: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)) })
}))

/** The value of the label; none if the node does not have it. */
export const read = Effect.fn("NodeLabel.read")(function*(
  options: NodeLabelOptions
): Effect.fn.Return<Option.Option<string>, NodeUnreadable> {
  const { deadline, label, node } = options
  const unreadable = (reason: string) => new NodeUnreadable({ node, reason })
  const { body } = yield* ClusterAccess.make(options).pipe(
    Effect.flatMap(ApiClient.make),
    Effect.flatMap((client) =>
      client.request({ method: "GET", path: `/api/v1/nodes/${encodeURIComponent(node)}` }, deadline)
    ),
    Effect.scoped,
    Effect.mapError(({ message }) => unreadable(message)),
    Effect.filterOrFail(
      ({ status }) => status === 200,
      (answer) => unreadable(ApiClient.unexpected(answer))
    )
  )
  const { metadata } = yield* Effect.mapError(
    Schema.decodeEffect(Node)(body),
    ({ message }) => unreadable(`the answer is not a Node: ${message}`)
  )
  return Option.fromUndefinedOr(metadata.labels?.[label])
})
