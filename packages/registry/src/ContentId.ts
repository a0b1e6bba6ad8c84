/** Names content: by its digest, or by a tag, which may point to other content tomorrow. */
import type * as Digest from "@spegel-ts/oci/Digest"
import type { DistributionRequest } from "@spegel-ts/oci/DistributionRequest"
import * as Reference from "@spegel-ts/oci/Reference"
import { Data } from "effect"

/** A request of the distribution API for content. */
export type ContentRequest = Extract<DistributionRequest, { readonly _tag: "Blob" | "Manifest" }>

/** Content as a request names it. Peers are always asked for digests, and for tags only if `resolveTags` is set. */
export type ContentId = Data.TaggedEnum<{
  /** Always the same bytes. */
  Digest: { readonly digest: Digest.Digest }
  /** `name` is `registry/repository:tag`. */
  Tag: { readonly name: string }
}>
export const ContentId = Data.taggedEnum<ContentId>()

/** The content that a request asks for; `name` is the request's image, with its tag if it asks by one. */
export const of = (request: ContentRequest, name: Reference.Reference): ContentId =>
  request._tag === "Blob"
    ? ContentId.Digest({ digest: request.digest })
    : request.reference._tag === "Digest"
    ? ContentId.Digest({ digest: request.reference.digest })
    : ContentId.Tag({ name: Reference.name(name) })

/** The digest, or `registry/repository:tag`: the key under which the content is advertised, and its name in logs. */
export const print = (content: ContentId): string => content._tag === "Digest" ? content.digest : content.name
