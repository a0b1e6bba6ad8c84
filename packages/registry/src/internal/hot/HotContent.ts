/**
 * Small content of this node, kept in memory for a second: a manifest that many ask for at the same time is read once. The
 * bytes of a digest never change; after that second the store is asked again whether it still holds them, and as which type.
 */
import type { BlobSource } from "@spegel-ts/content/ContentStore"
import type * as Digest from "@spegel-ts/oci/Digest"
import type { RegistryFilter } from "@spegel-ts/oci/RegistryFilter"
import { Effect, Option } from "effect"
import type { IncomingMessage, OutgoingHttpHeaders } from "node:http"
import type { ContentRequest } from "../../ContentId.ts"
import * as Answer from "../serve/Answer.ts"
import * as ContentExchange from "../serve/ContentExchange.ts"
import { TtlCache } from "./TtlCache.ts"

/** Larger content is not kept. In bytes. */
const maxSize = 64 * 1024

interface Kept {
  readonly mediaType: string
  readonly bytes: Uint8Array
}

/** The answer to a GET of all of something small, ready to be given again. */
export interface Repeated {
  readonly request: ContentRequest
  /** Of the bytes that are kept. */
  readonly key: string
  readonly headers: OutgoingHttpHeaders
  readonly bytes: Uint8Array
}

type File = Extract<BlobSource, { readonly _tag: "File" }>

/** Clients may ask for the same bytes as a blob, or as manifests of repositories that keep them under other types. */
const keyOf = (request: ContentRequest, digest: Digest.Digest) =>
  request._tag === "Blob"
    ? digest
    : `${Option.getOrElse(request.namespace, () => "")}/${request.repository}@${digest}`

/** Every `now` is a time as `MonotonicTime.millis` has it. */
export class HotContent {
  readonly #filter: RegistryFilter
  readonly #kept = new TtlCache<Kept>()
  /** By the request's target. */
  readonly #repeated = new TtlCache<Repeated>()

  constructor(filter: RegistryFilter) {
    this.#filter = filter
  }

  /** Reads a small file to its end and keeps it; undefined for a large file, or one whose size has changed. */
  load(
    request: ContentRequest,
    content: { readonly digest: Digest.Digest; readonly mediaType: string },
    file: File,
    now: number
  ): Effect.Effect<Uint8Array | undefined> {
    if (file.size > maxSize) return Effect.undefined
    return Effect.promise(async () => {
      const bytes = Buffer.allocUnsafeSlow(file.size)
      const { bytesRead } = await file.handle.read(bytes, 0, file.size, 0).catch(() => ({ bytesRead: -1 }))
      if (bytesRead !== file.size) return undefined
      this.#kept.set(keyOf(request, content.digest), { mediaType: content.mediaType, bytes }, now)
      return bytes
    })
  }

  /** Answers at once if all of something small is asked for that was read less than a second ago. */
  answer(exchange: ContentExchange.ContentExchange, now: number): Answer.Answer | undefined {
    const { request, response } = exchange
    const digest = ContentExchange.digestOf(request)
    // A peer is answered only after the content was checked for damage.
    if (digest === undefined || request.range !== undefined || request.mirrored) return undefined
    const key = keyOf(request, digest)
    const kept = this.#kept.get(key, now)
    if (kept === undefined || Option.exists(ContentExchange.nameOf(request), (name) => !this.#filter(name))) {
      return undefined
    }
    const { bytes, mediaType } = kept
    const head = { digest, mediaType, size: bytes.length, range: Option.none() }
    if (request.method === "GET") {
      this.#repeated.set(
        response.req.url ?? "",
        { request, key, headers: ContentExchange.headersOf(head), bytes },
        now
      )
    }
    const answer = ContentExchange.writeHead(exchange, head, Answer.local, now)
    response.end(request.method === "HEAD" ? undefined : bytes)
    return answer
  }

  /**
   * The last answer to the same target, if it is less than a second old and the client asks for the whole. Not for peers. Found
   * without parsing the request: on a busy node most requests repeat one.
   */
  repeat(incoming: IncomingMessage, now: number): Repeated | undefined {
    const { headers, method, url = "" } = incoming
    if (method !== "GET" || headers.range !== undefined) return undefined
    const known = this.#repeated.get(url, now)
    // Not for longer than the bytes are kept.
    return known !== undefined && this.#kept.get(known.key, now)?.bytes === known.bytes
      ? known
      : undefined
  }
}
