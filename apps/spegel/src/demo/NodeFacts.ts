/** What the demo reads back from its running nodes: metrics and the last requests, over HTTP as anybody would. */
import { Effect, Schema } from "effect"

const Pulls = Schema.Array(Schema.Struct({
  method: Schema.String,
  content: Schema.String,
  source: Schema.String,
  status: Schema.Int,
  bytes: Schema.Int,
  millis: Schema.Finite
}))

const Peers = Schema.Array(Schema.Struct({ id: Schema.String, addresses: Schema.Array(Schema.String) }))

const get = (url: string): Effect.Effect<Response> => Effect.promise((signal) => fetch(url, { signal }))

const json = <A, I>(url: string, schema: Schema.Codec<A, I>): Effect.Effect<A> =>
  get(url).pipe(
    Effect.flatMap((response) => Effect.promise(() => response.json())),
    Effect.flatMap(Schema.decodeUnknownEffect(schema)),
    Effect.orDie
  )

/** The last requests of a node, the newest first. */
export const pulls = (metrics: string) => json(`${metrics}/debug/pulls`, Pulls)

/** Addresses of a node's peers, by id. */
export const addressesOfPeers = (metrics: string) =>
  Effect.map(
    json(`${metrics}/debug/peers`, Peers),
    (peers) => new Map(peers.map(({ addresses, id }) => [id, addresses[0] ?? id]))
  )

/** Body bytes that a node sent in answer to GETs of manifests and blobs, by its own count. */
export const bytesServed = (metrics: string): Effect.Effect<number> =>
  get(`${metrics}/metrics`).pipe(
    Effect.flatMap((response) => Effect.promise(() => response.text())),
    Effect.map((text) => {
      let bytes = 0
      for (const [, labels = "", value] of text.matchAll(/^http_response_size_bytes_sum\{([^}]*)\} (\S+)$/gm)) {
        const content = labels.includes(`handler="blob"`) || labels.includes(`handler="manifest"`)
        if (content && labels.includes(`method="GET"`) && /code="20[06]"/.test(labels)) bytes += Number(value)
      }
      return bytes
    })
  )
