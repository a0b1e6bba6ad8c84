/** A request to the registry, parsed once: everything in the HTTP request that an answer depends on. */
import type { DistributionError } from "@spegel-ts/oci/DistributionError"
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import { Result } from "effect"
import type { IncomingMessage } from "node:http"
import type { ContentRequest } from "../../ContentId.ts"
import * as Lease from "../flight/Lease.ts"
import type { RequestHandler } from "../observe/RegistryMetrics.ts"
import * as DownloadState from "../share/DownloadState.ts"
import { suspectHeader } from "../verify/SuspectHeader.ts"

type Api = DistributionRequest.DistributionRequest

/** A request for a blob or a manifest. */
export interface ContentAsked {
  readonly _tag: "Content"
  readonly request: ContentRequest
  /** A peer got wrong bytes of this content from this node (`X-Spegel-Suspect: true`). */
  readonly suspected: boolean
  /** A peer takes the content of a download in progress, too; undefined if it does not. */
  readonly inProgress: DownloadState.Asked | undefined
  /** A peer asks whether to download it from upstream. */
  readonly lease: Lease.Asked | undefined
  /** The `User-Agent`; empty if there is none. */
  readonly userAgent: string
}

export type RegistryRequest =
  /** `/livez`: whether the process answers. */
  | { readonly _tag: "Livez" }
  /** `/readyz`: whether the node can serve, and knows other nodes. */
  | { readonly _tag: "Readyz" }
  | ContentAsked
  | Exclude<Api, ContentRequest>
  /** No request of the API. The error is the answer. */
  | { readonly _tag: "Invalid"; readonly error: DistributionError }

/** A probe asks how the node is, and is answered however busy it is. */
const probeOf = (url: string): RegistryRequest | undefined => {
  switch (url.split("?", 1)[0]) {
    case "/livez":
      return { _tag: "Livez" }
    case "/readyz":
      return { _tag: "Readyz" }
    default:
      return undefined
  }
}

export const isProbe = ({ url = "" }: IncomingMessage): boolean => probeOf(url) !== undefined

/** Whether a peer sent a request, for a decision that is made before it is parsed. */
export const isFromPeer = ({ headers }: IncomingMessage): boolean =>
  headers[DistributionRequest.mirroredHeader] !== undefined

export const parse = ({ headers, method = "", url = "" }: IncomingMessage): RegistryRequest => {
  const probe = probeOf(url)
  if (probe !== undefined) return probe
  const parsed = DistributionRequest.parse({ method, url, headers })
  if (Result.isFailure(parsed)) return { _tag: "Invalid", error: parsed.failure }
  const request = parsed.success
  return request._tag === "Blob" || request._tag === "Manifest"
    ? {
      _tag: "Content",
      request,
      suspected: headers[suspectHeader] === "true",
      inProgress: DownloadState.parseAsked(headers[DownloadState.inProgressHeader]),
      lease: Lease.parseAsked(headers[Lease.leaseHeader]),
      userAgent: headers["user-agent"] ?? ""
    }
    : request
}

const handlers = {
  Blob: "blob",
  Invalid: "invalid",
  Livez: "livez",
  Manifest: "manifest",
  Ping: "ping",
  Readyz: "readyz",
  Referrers: "referrers",
  TagsList: "tagslist"
} as const satisfies Record<string, RequestHandler>

/** The name of the endpoint in metrics. */
export const handlerOf = (asked: RegistryRequest | ContentRequest): RequestHandler =>
  handlers[asked._tag === "Content" ? asked.request._tag : asked._tag]
