/** Facts about the running nodes, read from their metrics and debug pages as any HTTP client can. */
import { Data, Effect, Schema } from "effect"

const Pulls = Schema.Array(Schema.Struct({
  method: Schema.String,
  content: Schema.String,
  source: Schema.String,
  status: Schema.Int,
  bytes: Schema.Int,
  millis: Schema.Finite
}))

const Peers = Schema.Array(Schema.Struct({ id: Schema.String, addresses: Schema.Array(Schema.String) }))

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

const json = <A, I>(url: string, schema: Schema.Codec<A, I>): Effect.Effect<A, NodeUnreachable> =>
  get(url).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(Schema.fromJsonString(schema))),
    Effect.mapError((error) =>
      error._tag === "NodeUnreachable" ? error : new NodeUnreachable({ url, reason: error.message })
    )
  )

/** The last requests that a node answered, the newest first. `metrics` is the URL of its metrics address. */
export const pulls = (metrics: string) => json(`${metrics}/debug/pulls`, Pulls)

/** The addresses of a node's peers, by id. */
export const addressesOfPeers = (metrics: string) =>
  Effect.map(
    json(`${metrics}/debug/peers`, Peers),
    (peers) => new Map(peers.map(({ addresses, id }) => [id, addresses[0] ?? id]))
  )

/** Body bytes that a node sent for GETs of manifests and blobs, as its metrics count them. */
export const bytesServed = (metrics: string): Effect.Effect<number, NodeUnreachable> =>
  get(`${metrics}/metrics`).pipe(
    Effect.map((text) => {
      let bytes = 0
      for (const [, labels = "", value] of text.matchAll(/^http_response_size_bytes_sum\{([^}]*)\} (\S+)$/gm)) {
        const content = labels.includes(`handler="blob"`) || labels.includes(`handler="manifest"`)
        if (content && labels.includes(`method="GET"`) && /code="20[06]"/.test(labels)) bytes += Number(value)
      }
      return bytes
    })
  )
