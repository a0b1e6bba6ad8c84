/** Facts about the running nodes, read from their metrics and debug pages as any HTTP client can. */
import { Data, Effect, Schema } from "effect"

const Attempt = Schema.Struct({
  address: Schema.String,
  start: Schema.Int,
  bytes: Schema.Int,
  outcome: Schema.String
})

const Pulls = Schema.Array(Schema.Struct({
  method: Schema.String,
  content: Schema.String,
  status: Schema.Int,
  bytes: Schema.Int,
  attempts: Schema.Array(Attempt)
}))

/** What a peer did for a request. */
export type Attempt = typeof Attempt.Type

/** A node of the demo does not answer, or not in the expected form. */
export class NodeUnreachable extends Data.TaggedError("NodeUnreachable")<{
  readonly url: string
  readonly reason: string
}> {
  override get message() {
    return `${this.url} does not answer (${this.reason}); the node has stopped, or is not what it was`
  }
}

const get = (url: string): Effect.Effect<string, NodeUnreachable> =>
  Effect.tryPromise({
    try: (signal) => fetch(url, { signal }).then((response) => response.text()),
    catch: (cause) => new NodeUnreachable({ url, reason: String(cause) })
  })

/** The GETs of a digest that a node has answered, the oldest first. `metrics` is the URL of its metrics address. */
export const pullsOf = (metrics: string, digest: string) => {
  const url = `${metrics}/debug/pulls`
  return get(url).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(Schema.fromJsonString(Pulls))),
    Effect.mapError((error) =>
      error._tag === "NodeUnreachable" ? error : new NodeUnreachable({ url, reason: error.message })
    ),
    Effect.map((pulls) => pulls.filter(({ content, method }) => method === "GET" && content === digest).toReversed())
  )
}

/** The sum of a metric's series. */
export const metric = (metrics: string, name: string): Effect.Effect<number, NodeUnreachable> =>
  Effect.map(get(`${metrics}/metrics`), (text) =>
    text.split("\n")
      .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0))
