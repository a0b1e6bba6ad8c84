/**
 * The images that this node's containerd is pulling: each blob with how far it has come, where its bytes come from, and which nodes
 * take it from here as it grows (docs/single-flight.md).
 */
import type { Activity, RunningDownload, RunningRequest } from "@spegel-ts/registry/Activity"
import { Schema } from "effect"
import type { Facts } from "./Facts.ts"
import * as NodeNames from "./NodeNames.ts"

/**
 * Where the bytes of a blob come from. `peers` send them; `upstream` sends them; `waiting` for the download of another node; `looking`
 * for a peer; `stalled`: none came for a while; `unknown`: the mirror was not asked.
 */
export const Source = Schema.Literals(["peers", "upstream", "waiting", "looking", "stalled", "unknown"])
export type Source = typeof Source.Type

export const Blob = Schema.Struct({
  /** The digest, or the tag of a manifest. */
  content: Schema.String,
  /** In bytes; null if it is not known yet. */
  size: Schema.NullOr(Schema.Finite),
  written: Schema.Finite,
  source: Source,
  /** The peers that send it, or whose downloads are waited for. */
  from: Schema.Array(NodeNames.NodeName),
  /** The nodes that take it from here as it grows. */
  to: Schema.Array(NodeNames.NodeName),
  /** How long ago the mirror was asked for it, in milliseconds; null if it does not know. */
  millis: Schema.NullOr(Schema.Finite)
})
export type Blob = typeof Blob.Type

export const Pull = Schema.Struct({
  /** `registry/repository`; empty if it is not known. */
  image: Schema.String,
  blobs: Schema.Array(Blob)
})
export type Pull = typeof Pull.Type
export const Pulls = Schema.Array(Pull)

const unique = (ids: ReadonlyArray<string>) => [...new Set(ids)]

/** What is known of one blob. */
interface Known {
  readonly content: string
  readonly download: RunningDownload | undefined
  readonly requests: ReadonlyArray<RunningRequest>
}

const sourceOf = ({ download, requests }: Known): { readonly source: Source; readonly ids: ReadonlyArray<string> } => {
  const senders = unique(requests.flatMap(({ source }) => source ?? []))
  if (senders.length > 0) return { source: "peers", ids: senders }
  const awaited = unique(requests.flatMap(({ waitingFor }) => waitingFor ?? []))
  if (awaited.length > 0) return { source: "waiting", ids: awaited }
  if (requests.length > 0) return { source: "looking", ids: [] }
  return { source: download?.origin ?? "unknown", ids: [] }
}

const blobOf = (known: Known, names: NodeNames.NodeNames): Blob => {
  const { content, download, requests } = known
  const [oldest] = requests
  const { ids, source } = sourceOf(known)
  return {
    content,
    size: download?.size ?? oldest?.size ?? null,
    written: download?.written ?? oldest?.sent ?? 0,
    source,
    from: ids.map(names.byId),
    to: unique(download?.followers ?? []).map(names.byId),
    millis: download?.millis ?? oldest?.millis ?? null
  }
}

const isPull = ({ method, mirrored, own }: RunningRequest) => own && !mirrored && method === "GET"

const knownOf = ({ downloads, requests }: Activity): ReadonlyArray<Known & { readonly image: string }> => {
  const pulling = Map.groupBy(requests.filter(isPull), ({ content }) => content)
  const byDigest = new Map(downloads.map((download) => [String(download.digest), download]))
  return unique([...byDigest.keys(), ...pulling.keys()]).map((content) => {
    const download = byDigest.get(content)
    const asked = pulling.get(content) ?? []
    const image = [download?.image, asked[0]?.image].find((name) => name !== undefined && name !== "") ?? ""
    return { content, download, requests: asked, image }
  })
}

export const of = (facts: Facts): ReadonlyArray<Pull> => {
  const names = NodeNames.of(facts)
  const byImage = Map.groupBy(knownOf(facts.activity), ({ image }) => image)
  return [...byImage].map(([image, known]) => ({ image, blobs: known.map((one) => blobOf(one, names)) }))
}
