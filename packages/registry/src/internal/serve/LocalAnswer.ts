/** Answers with content that this node holds. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { ContentNotFound, ContentStore, type StoreUnavailable } from "@spegel-ts/content/ContentStore"
import type * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import type { Reference } from "@spegel-ts/oci/Reference"
import type { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import { pieceSize } from "@spegel-ts/transfer/ClientSink"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect, type Option, type Scope } from "effect"
import type { ContentRequest } from "../../ContentId.ts"
import type { HotContent } from "../hot/HotContent.ts"
import type { BodyMemory } from "../memory/BodyMemory.ts"
import * as RequestSpans from "../observe/RequestSpans.ts"
import * as Answer from "./Answer.ts"
import { finish, sendBytes, sendFile } from "./BlobBody.ts"
import * as ContentExchange from "./ContentExchange.ts"
import type { Refused } from "./Refusal.ts"
import type { UploadAdmission } from "./UploadAdmission.ts"

export interface LocalAnswerOptions {
  readonly hot: HotContent
  readonly memory: BodyMemory
  readonly uploads: UploadAdmission
}

type LocalError = BodyInterrupted | ContentNotFound | Refused | StoreUnavailable

export const make = Effect.fnUntraced(function*({ hot, memory, uploads }: LocalAnswerOptions) {
  const store = yield* ContentStore
  const transfer = yield* Transfer

  /** The type of held content. A manifest of unknown type counts as not held: a wrong type would break the pull. */
  const mediaTypeOf = (request: ContentRequest, digest: Digest.Digest, name: Option.Option<Reference>) =>
    request._tag === "Blob"
      ? Effect.succeed(MediaType.octetStream)
      : Effect.flatMap(
        store.manifestType(digest, name),
        (type) => Effect.mapError(Effect.fromOption(type), () => new ContentNotFound({ content: digest }))
      )

  /** Opens what is held. It is not nested in a request: V8 would keep both until its next major collection (see `Pull`). */
  const find = Effect.fnUntraced(function*(
    request: ContentRequest,
    digest: Digest.Digest,
    name: Option.Option<Reference>
  ) {
    const mediaType = yield* mediaTypeOf(request, digest, name)
    const source = request.method === "HEAD" ? undefined : yield* store.open(digest)
    return { mediaType, source, size: source?.size ?? (yield* store.size(digest)) }
  })

  /** Sends the content of `digest`. Fails with `ContentNotFound` before anything was sent. */
  return Effect.fnUntraced(function*(
    exchange: ContentExchange.ContentExchange,
    digest: Digest.Digest,
    name: Option.Option<Reference>
  ): Effect.fn.Return<Answer.Answer, LocalError, Scope.Scope> {
    const { request, response } = exchange
    const { mediaType, size, source } = yield* RequestSpans.localLookup(digest)(find(request, digest, name))
    const range = yield* ContentExchange.rangeOf(exchange, digest, size)
    const head = { digest, mediaType, size, range }
    if (request.method === "GET") {
      if (!exchange.own) yield* uploads.admit(response)
      // A small body goes out at once, and takes no memory to speak of.
      if (size > pieceSize) yield* ContentExchange.reserve(exchange, memory, "file")
    }
    const now = yield* MonotonicTime.millis
    const loaded = source?._tag === "File" ? yield* hot.load(request, head, source, now) : undefined
    const answer = ContentExchange.writeHead(exchange, head, Answer.local, now)
    if (source !== undefined) {
      const part = ContentExchange.partOf(head)
      const to = yield* ContentExchange.recipient(exchange, memory)
      const bytes = source._tag === "Bytes" ? source.bytes : loaded
      if (bytes !== undefined) yield* sendBytes(bytes.subarray(part.start, part.end), to)
      else if (source._tag === "File") {
        yield* memory.sending(to.client.socket, to.progress)
        yield* sendFile(transfer, source.handle, part, to)
      }
    }
    yield* finish(response)
    return answer
  }, Effect.scoped)
})
