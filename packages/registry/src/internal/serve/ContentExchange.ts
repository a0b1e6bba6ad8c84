/** A request for content and the response to it: what all steps that answer it share. */
import * as ByteRange from "@spegel-ts/oci/ByteRange"
import type * as Digest from "@spegel-ts/oci/Digest"
import type { Reference } from "@spegel-ts/oci/Reference"
import { BodyInterrupted, clientGone } from "@spegel-ts/transfer/BodyInterrupted"
import { Effect, Option, type Scope } from "effect"
import type { OutgoingHttpHeaders } from "node:http"
import type { ContentRequest } from "../../ContentId.ts"
import * as AnswerProof from "../auth/AnswerProof.ts"
import type { BodyMemory } from "../memory/BodyMemory.ts"
import type { BodyKind } from "../memory/BodyReserve.ts"
import type { PullRecord } from "../observe/PullRecord.ts"
import * as DownloadState from "../share/DownloadState.ts"
import type { Served, Source } from "./Answer.ts"
import { type Recipient, recipientOf } from "./BlobBody.ts"
import * as LocalContent from "./LocalContent.ts"
import { Refusal, Refused } from "./Refusal.ts"
import { apiVersion, type Destination } from "./Reply.ts"

export interface ContentExchange extends Destination {
  readonly request: ContentRequest
  readonly record: PullRecord
  /**
   * Whether this node's own containerd asks. Only its bodies do not count as uploads, and only its downloads show whether peers
   * sent the right bytes.
   */
  readonly own: boolean
}

/** The content, as the head of an answer describes it. */
export interface ContentHead {
  readonly digest: Digest.Digest
  readonly mediaType: string
  /** The size of the whole, in bytes. */
  readonly size: number
  /** The part that is sent; none for the whole. */
  readonly range: Option.Option<ByteRange.ByteRange>
  /** The download that it is sent from, if it is no complete content. */
  readonly download?: DownloadState.DownloadState
}

/** The tag that a request asks for; undefined if it asks by digest. */
export const tagOf = (request: ContentRequest): string | undefined =>
  request._tag === "Manifest" && request.reference._tag === "Tag" ? request.reference.tag : undefined

/** The digest that a request asks for; undefined if it asks by tag. */
export const digestOf = (request: ContentRequest): Digest.Digest | undefined =>
  request._tag === "Blob"
    ? request.digest
    : request.reference._tag === "Digest"
    ? request.reference.digest
    : undefined

/** The name of the image; none if its registry is not known. */
export const nameOf = (request: ContentRequest): Option.Option<Reference> => {
  const tag = tagOf(request)
  return Option.map(LocalContent.complete(request), (name) => tag === undefined ? name : { ...name, tag })
}

/** The part of `size` bytes that is asked for; none for the whole. */
export const rangeOf = (
  { request }: ContentExchange,
  digest: Digest.Digest,
  size: number
): Effect.Effect<Option.Option<ByteRange.ByteRange>, Refused> =>
  Effect.mapError(
    Effect.fromResult(ByteRange.parse(request.range, size)),
    (error) => new Refused({ refusal: Refusal.RangeOutside({ error, content: digest }) })
  )

/** The bytes that are sent. */
export const partOf = ({ range, size }: ContentHead): ByteRange.ByteRange =>
  Option.getOrElse(range, () => ({ start: 0, end: size }))

export const headersOf = (head: ContentHead): OutgoingHttpHeaders => {
  const { end, start } = partOf(head)
  return {
    "content-type": head.mediaType,
    "content-length": end - start,
    "docker-content-digest": head.digest,
    "accept-ranges": "bytes",
    ...apiVersion,
    ...(head.download === undefined
      ? {}
      : { [DownloadState.inProgressHeader]: DownloadState.print(head.download) }),
    ...(Option.isSome(head.range) ? { "content-range": ByteRange.contentRange(head.range.value, head.size) } : {})
  }
}

/** Sets the head of the answer at the time `now`. It goes out with the first byte of the body. */
export const writeHead = (
  { proof, record, response }: ContentExchange,
  head: ContentHead,
  source: Source,
  now: number
): Served => {
  record.headTime = now
  const { end, start } = partOf(head)
  record.size = end - start
  const status = Option.isSome(head.range) ? 206 : 200
  response.writeHead(status, AnswerProof.sign(proof, status, headersOf(head)))
  return { _tag: "Served", status, bytes: end - start, source }
}

/** Reserves memory for the body while the scope is open. */
export const reserve = Effect.fnUntraced(function*(
  { response: { socket } }: ContentExchange,
  memory: BodyMemory,
  kind: BodyKind
): Effect.fn.Return<void, Refused, Scope.Scope> {
  if (socket === null || (yield* memory.admit(socket, kind))) return
  return yield* new Refused({ refusal: Refusal.NoMemory() })
})

/** The client, as bodies are moved to it. */
export const recipient = (
  { record, response }: ContentExchange,
  memory: BodyMemory
): Effect.Effect<Recipient, BodyInterrupted> =>
  Effect.suspend(() => {
    const { socket } = response
    if (socket === null) return Effect.fail(new BodyInterrupted({ reason: clientGone }))
    const recipient = recipientOf(response, socket, memory)
    record.progress = recipient.progress
    return Effect.succeed(recipient)
  })
