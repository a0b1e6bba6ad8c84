/**
 * Answers to requests for blobs and manifests: from this node if it holds them, else from a peer, else a 404 that says
 * why, upon which containerd asks the next host of its hosts.toml.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { ContentNotFound, ContentStore, type StoreUnavailable } from "@spegel-ts/content/ContentStore"
import * as ByteRange from "@spegel-ts/oci/ByteRange"
import type * as Digest from "@spegel-ts/oci/Digest"
import * as DistributionError from "@spegel-ts/oci/DistributionError"
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import type { Reference } from "@spegel-ts/oci/Reference"
import type { RegistryFilter } from "@spegel-ts/oci/RegistryFilter"
import { BodyInterrupted, clientGone } from "@spegel-ts/transfer/BodyInterrupted"
import { pieceSize } from "@spegel-ts/transfer/ClientSink"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect, Option } from "effect"
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http"
import { type Answer, apiVersion, interrupted, reset } from "../../Answer.ts"
import * as ContentId from "../../ContentId.ts"
import * as Mirror from "../../Mirror.ts"
import type { MirrorError } from "../../MirrorError.ts"
import type { PullRecord } from "../../PullLog.ts"
import * as PullSpans from "../../PullSpans.ts"
import * as RegistryMetrics from "../../RegistryMetrics.ts"
import * as Scrubber from "../verify/Scrubber.ts"
import { finish, type Recipient, recipientOf, sendBytes, sendFile, whileTaking } from "./BlobBody.ts"
import type { BodyMemory } from "./BodyMemory.ts"
import type { BodyKind } from "./BodyReserve.ts"
import * as LocalContent from "./LocalContent.ts"
import { ShortMemory } from "./ShortMemory.ts"
import { SmallContent } from "./SmallContent.ts"
import * as UploadAdmission from "./UploadAdmission.ts"

export interface ContentOptions extends Mirror.MirrorOptions, UploadAdmission.UploadLimits {
  /** Whether peers are asked for tags; digests they are asked for always. */
  readonly resolveTags: boolean
  /** Images that the mirror handles; others it leaves to upstream. */
  readonly filter: RegistryFilter
}

/** The answer to a request for all of something small, ready to be given again. */
export interface Repeated {
  readonly request: ContentId.ContentRequest
  readonly digest: Digest.Digest
  readonly headers: OutgoingHttpHeaders
  readonly bytes: Uint8Array
}

type ContentError = BodyInterrupted | DistributionError.DistributionError | StoreUnavailable

/** What a head says of the body. */
interface Content {
  readonly digest: Digest.Digest
  readonly mediaType: string
  readonly size: number
  readonly range: Option.Option<ByteRange.ByteRange>
  readonly source: string
}

const headersOf = ({ digest, mediaType, range, size }: Content, length: number): OutgoingHttpHeaders => ({
  "content-type": mediaType,
  "content-length": length,
  "docker-content-digest": digest,
  "accept-ranges": "bytes",
  ...apiVersion,
  ...(Option.isSome(range) ? { "content-range": ByteRange.contentRange(range.value, size) } : {})
})

const unknownOf = ({ _tag }: ContentId.ContentRequest) =>
  _tag === "Blob" ? DistributionError.blobUnknown : DistributionError.manifestUnknown

/** The digest that a request asks by. */
const digestOf = (request: ContentId.ContentRequest): Digest.Digest | undefined =>
  request._tag === "Blob"
    ? request.digest
    : request.reference._tag === "Digest"
    ? request.reference.digest
    : undefined

export const make = Effect.fn("ContentAnswer.make")(function*(options: ContentOptions, memory: BodyMemory) {
  const store = yield* ContentStore
  const local = yield* LocalContent.make
  const mirror = yield* Mirror.make(options)
  yield* UploadAdmission.initialise
  const uploads = UploadAdmission.make(options)
  const scrubber = yield* Scrubber.make
  const small = new SmallContent()
  const transfer = yield* Transfer

  const repeated = new ShortMemory<Repeated>()

  const writeHead = (response: ServerResponse, record: PullRecord, content: Content, now: number) => {
    record.headTime = now
    const { range, size, source } = content
    const { end, start } = Option.getOrElse(range, () => ({ start: 0, end: size }))
    const status = Option.isSome(range) ? 206 : 200
    response.writeHead(status, headersOf(content, end - start))
    return { status, bytes: end - start, source } satisfies Answer
  }

  const outside = (response: ServerResponse, digest: string) => (error: ByteRange.RangeNotSatisfiable) => {
    response.setHeader("content-range", ByteRange.unsatisfiedRange(error.size))
    return DistributionError.rangeInvalid(`spegel-ts: ${error.message} of ${digest}`)
  }

  /** What held content is answered as. No manifest is held where its type cannot be told: a wrong one breaks the pull. */
  const mediaTypeOf = (request: ContentId.ContentRequest, digest: Digest.Digest, name: Option.Option<Reference>) =>
    request._tag === "Blob"
      ? Effect.succeed(MediaType.octetStream)
      : Effect.flatMap(
        store.manifestType(digest, name),
        (type) => Effect.mapError(Effect.fromOption(type), () => new ContentNotFound({ content: digest }))
      )

  /** Looks up what is held. Nested in a request, V8 would keep it and the request until a major collection (`PeerRace`). */
  const find = Effect.fnUntraced(function*(
    request: ContentId.ContentRequest,
    digest: Digest.Digest,
    name: Option.Option<Reference>
  ) {
    const mediaType = yield* mediaTypeOf(request, digest, name)
    const source = request.method === "HEAD" ? undefined : yield* store.open(digest)
    return { mediaType, source, size: source?.size ?? (yield* store.size(digest)) }
  })

  /** Memory for a body of some kind; where there is none the client is told to ask another, containerd by 404. */
  const admit = Effect.fnUntraced(
    function*(kind: BodyKind, request: ContentId.ContentRequest, response: ServerResponse) {
      const { socket } = response
      if (socket === null || (yield* memory.admit(socket, kind))) return
      const reason = "spegel-ts: this node's memory for bodies is in use (--max-body-memory)"
      if (!request.mirrored) {
        return yield* unknownOf(request)(`${reason}; containerd continues with the upstream registry`)
      }
      response.setHeader("retry-after", UploadAdmission.retryAfter)
      return yield* DistributionError.unavailable(`${reason}: ask another`)
    }
  )

  const recipient = (response: ServerResponse, record: PullRecord): Effect.Effect<Recipient, BodyInterrupted> =>
    Effect.suspend(() => {
      const { socket } = response
      if (socket === null) return Effect.fail(new BodyInterrupted({ reason: clientGone }))
      const recipient = recipientOf(response, socket, memory)
      record.progress = recipient.progress
      return Effect.succeed(recipient)
    })

  /** Sends what this node holds. */
  const serveLocal = Effect.fnUntraced(function*(
    request: ContentId.ContentRequest,
    digest: Digest.Digest,
    name: Option.Option<Reference>,
    response: ServerResponse,
    record: PullRecord
  ) {
    const head = request.method === "HEAD"
    const { mediaType, size, source } = yield* PullSpans.localLookup(digest)(find(request, digest, name))
    const range = yield* Effect.mapError(
      Effect.fromResult(ByteRange.parse(request.range, size)),
      outside(response, digest)
    )
    if (request.mirrored && !head) yield* uploads.admit(response)
    // What goes at once takes no memory to speak of.
    if (!head && size > pieceSize) yield* admit("file", request, response)
    const now = yield* MonotonicTime.millis
    const bytes = source?._tag === "File" ? yield* small.load(request, { digest, mediaType }, source, now) : undefined
    const answer = writeHead(response, record, { digest, mediaType, size, range, source: "local" }, now)
    if (source === undefined) {
      yield* finish(response)
      return answer
    }
    const part = Option.getOrElse(range, () => ({ start: 0, end: size }))
    const to = yield* recipient(response, record)
    if (source._tag === "File" && bytes === undefined) {
      yield* memory.sending(to.client.socket, to.progress)
      yield* sendFile(transfer, source.handle, part, to)
    } else {
      const whole = source._tag === "Bytes" ? source.bytes : bytes
      yield* sendBytes((whole ?? new Uint8Array()).subarray(part.start, part.end), to)
    }
    yield* finish(response)
    return answer
  }, Effect.scoped)

  /** Sends what a peer holds; the response's head goes out with its first byte. */
  const serveMirrored = Effect.fnUntraced(function*(
    request: ContentId.ContentRequest,
    name: Reference,
    response: ServerResponse,
    record: PullRecord
  ) {
    if (request.method === "GET") yield* admit("relay", request, response)
    const content = yield* Effect.catchTag(
      mirror.fetch(request, name, record, response.req.headers["user-agent"] ?? ""),
      "RangeNotSatisfiable",
      (error) => outside(response, ContentId.print(ContentId.of(request, name)))(error)
    )
    const { body, peer } = content
    const now = yield* MonotonicTime.millis
    const answer = writeHead(response, record, { ...content, source: peer.id }, now)
    if (request.method === "HEAD") {
      yield* finish(response)
      return answer
    }
    const to = yield* recipient(response, record)
    if (body._tag === "Verified") {
      yield* sendBytes(body.bytes, to)
      yield* finish(response)
      return answer
    }
    yield* memory.sending(to.client.socket, to.progress, record)
    return yield* whileTaking(to.progress, body.relay(to)).pipe(
      Effect.andThen(finish(response)),
      Effect.as(answer),
      // What containerd has is wrong: to go on with it would be of no use. A pull that an RST fails begins anew.
      Effect.catchTag("ContentCorrupted", ({ message }) => Effect.sync(() => reset(response, message, answer))),
      // An early FIN makes containerd go on at the byte reached, with the next host; an RST would fail its pull.
      Effect.catchIf(
        (error) => error._tag !== "BodyInterrupted",
        ({ message }) =>
          Effect.as(
            Effect.logWarning(`${message}: ending the body early, containerd goes on with upstream`),
            interrupted(response, message, answer)
          )
      )
    )
  }, Effect.scoped)

  const nameOf = (request: ContentId.ContentRequest, tag?: string): Option.Option<Reference> =>
    Option.map(LocalContent.complete(request), (name) => tag === undefined ? name : { ...name, tag })

  /** Answers at once where all of something small is asked for that was read a moment ago. */
  const fromMemory = (
    request: ContentId.ContentRequest,
    response: ServerResponse,
    record: PullRecord,
    now: number
  ): Answer | undefined => {
    const digest = digestOf(request)
    // What a peer suspects, or this node knows to be damaged, is looked at first.
    if (digest === undefined || request.range !== undefined || request.mirrored) return undefined
    const content = small.get(request, digest, now)
    if (content === undefined || Option.exists(nameOf(request), (name) => !options.filter(name))) return undefined
    const { bytes, mediaType } = content
    const size = bytes.length
    const headers = headersOf({ digest, mediaType, size, range: Option.none(), source: "local" }, size)
    if (request.method === "GET") repeated.set(response.req.url ?? "", { request, digest, headers, bytes }, now)
    record.headTime = now
    response.writeHead(200, headers)
    response.end(request.method === "HEAD" ? undefined : bytes)
    return { status: 200, bytes: size, source: "local" }
  }

  const answer = Effect.fnUntraced(function*(
    request: ContentId.ContentRequest,
    response: ServerResponse,
    record: PullRecord
  ): Effect.fn.Return<Answer, ContentError> {
    const tag = request._tag === "Manifest" && request.reference._tag === "Tag" ? request.reference.tag : undefined
    const unknown = unknownOf(request)
    const name = nameOf(request, tag)
    if (Option.exists(name, (name) => !options.filter(name))) {
      return yield* unknown("spegel-ts: this image is left to the upstream registry (mirrored registries, filters)")
    }

    const digest = tag === undefined
      ? Option.fromUndefinedOr(digestOf(request))
      : yield* LocalContent.ifHeld(PullSpans.localLookup(tag)(local.resolve(request, tag)))
    if (request.mirrored && Option.isSome(digest)) {
      if (response.req.headers[Scrubber.suspectHeader] === "true") yield* scrubber.suspect(digest.value)
      if (yield* scrubber.isDamaged(digest.value)) {
        return yield* unknown(`spegel-ts: this node's copy of ${digest.value} is damaged`)
      }
    }
    if (Option.isSome(digest)) {
      const served = yield* LocalContent.ifHeld(serveLocal(request, digest.value, name, response, record))
      if (Option.isSome(served)) return served.value
    }

    const wanted = `${Option.getOrElse(digest, () => tag ?? "")}${request._tag === "Manifest" ? " as a manifest" : ""}`
    if (request.mirrored) return yield* unknown(`spegel-ts: this node does not hold ${wanted}`)
    if (Option.isNone(request.namespace) || Option.isNone(name)) {
      return yield* unknown(`spegel-ts: this node does not hold ${wanted}; without ?ns= no peer is asked`)
    }
    if (tag !== undefined && !options.resolveTags) {
      return yield* unknown("spegel-ts: tags are left to the upstream registry (--resolve-tags)")
    }
    const count = (hit: boolean) => RegistryMetrics.mirrored(name.value.registry, hit)
    const upstreamNext = (error: MirrorError) =>
      Effect.andThen(
        count(false),
        unknown(`spegel-ts: ${error.message}; containerd continues with the upstream registry`)
      )
    return yield* serveMirrored(request, name.value, response, record).pipe(
      Effect.tap(({ status }) => count(status !== 0)),
      // Who leaves while a peer serves has what it wants: containerd does so where it fetches a layer in parts.
      Effect.onInterrupt(() => record.source === undefined ? Effect.void : count(true)),
      Effect.catchTag(["PeerNotFound", "ResolveTimeout", "AnswerTimeout"], upstreamNext)
    )
  })

  /** What `GET` of a target was answered from memory a moment ago, for who wants all of it and is no peer. */
  const repeat = ({ headers, method, url = "" }: IncomingMessage, now: number): Repeated | undefined => {
    if (method !== "GET" || headers.range !== undefined) return undefined
    if (headers[DistributionRequest.mirroredHeader] !== undefined) return undefined
    const known = repeated.get(url, now)
    // No longer than the bytes are kept: then it is asked again whether they are held.
    return known !== undefined && small.get(known.request, known.digest, now)?.bytes === known.bytes ? known : undefined
  }

  return { answer, fromMemory, repeat }
})
