/** A peer's answer to a request for content, judged by its head: a peer is untrusted, and may be of another kind. */
import * as ByteRange from "@spegel-ts/oci/ByteRange"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import type { Peer } from "@spegel-ts/router/Peer"
import { PeerRefused } from "@spegel-ts/transfer/PeerError"
import type { PeerResponse } from "@spegel-ts/transfer/PeerTransport"
import { Effect, Option, Result } from "effect"
import { isIPv6 } from "node:net"
import type { ContentRequest } from "../../ContentId.ts"
import { PeerStillDownloading } from "../../MirrorError.ts"
import * as DownloadState from "../share/DownloadState.ts"
import * as PeerAddress from "./PeerAddress.ts"

/** An answer that promises the content, or the part of it, that was asked for. */
export interface PeerAnswer {
  /** At the one address that answered. */
  readonly peer: Peer
  readonly response: PeerResponse
  readonly digest: Digest.Digest
  readonly mediaType: string
  /** Size of the whole in bytes. */
  readonly size: number
  /** The part that the body is. */
  readonly range: ByteRange.ByteRange
  /** The peer's download that it sends, if that is not complete: nobody has verified its bytes yet. */
  readonly download: DownloadState.DownloadState | undefined
}

/** A peer as errors and logs name it. */
export const nameOf = ({ addresses: [address = ""], servicePort }: Peer): string =>
  isIPv6(address) ? `[${address}]:${servicePort}` : `${address}:${servicePort}`

/** Whether the body is the whole content: only then can it be verified by its digest. */
export const isWhole = ({ range, size }: PeerAnswer): boolean => range.start === 0 && range.end === size

/** The answer, if the whole has the size in bytes that is expected; undefined for any. */
export const sized = (answer: PeerAnswer, expected: number | undefined): Effect.Effect<PeerAnswer, PeerRefused> =>
  expected === undefined || answer.size === expected
    ? Effect.succeed(answer)
    : refuse(answer.peer, `has ${answer.size} bytes of it and not ${expected}`)

/** The range to ask peers for; undefined for the whole, of which `bytes=0-` is another name. */
export const rangeOf = (request: ContentRequest): string | undefined => {
  if (request._tag === "Manifest" || request.method === "HEAD") return undefined
  const parsed = ByteRange.parse(request.range, Number.MAX_SAFE_INTEGER)
  const ignored = Result.isSuccess(parsed) && Option.isNone(parsed.success)
  return ignored || Option.contains(ByteRange.openStart(request.range), 0) ? undefined : request.range
}

/** Takes a response for an answer to `request`, for the part `range` of the content, or for the whole if it is undefined. */
export const judge = Effect.fnUntraced(function*(
  request: ContentRequest,
  asked: Peer,
  response: PeerResponse,
  range: string | undefined
): Effect.fn.Return<PeerAnswer, PeerRefused | PeerStillDownloading> {
  const peer = PeerAddress.answering(asked, response.address)
  const { contentLength, headers, status } = response
  // Only the word of a peer that has proved itself makes a pull wait.
  const download = asked.proved === true
    ? DownloadState.parse(headers.get(DownloadState.inProgressHeader))
    : undefined
  if (status === 404 && download !== undefined) {
    return yield* new PeerStillDownloading({ peer: nameOf(peer), state: download })
  }
  if (status !== (range === undefined ? 200 : 206)) return yield* refuse(peer, `answered ${status}`, response)
  const part = range === undefined
    ? { size: contentLength, range: { start: 0, end: contentLength } }
    : partOf(response, range)
  if (part === undefined) return yield* refuse(peer, "answered with another range than asked")
  if (contentLength !== part.range.end - part.range.start) {
    return yield* refuse(peer, "answered with a wrong Content-Length")
  }
  if (request._tag === "Blob") {
    return { peer, response, ...part, digest: request.digest, mediaType: MediaType.octetStream, download }
  }
  // The digest of a tag is only the peer's word until its bytes are here.
  const digest = request.reference._tag === "Digest"
    ? Option.some(request.reference.digest)
    : Digest.fromString(headers.get("docker-content-digest") ?? "")
  if (Option.isNone(digest)) return yield* refuse(peer, "answered a tag without Docker-Content-Digest")
  if (part.size > MediaType.maxManifestSize) {
    return yield* refuse(peer, `answered with a manifest of ${part.size} bytes`)
  }
  return { peer, response, ...part, digest: digest.value, mediaType: headers.get("content-type") ?? "", download }
})

const refuse = (peer: Peer, reason: string, response?: PeerResponse): Effect.Effect<never, PeerRefused> => {
  const retryAfterMillis = response === undefined ? undefined : retryAfter(response)
  return Effect.fail(
    new PeerRefused({
      peer: nameOf(peer),
      reason,
      ...(response === undefined ? {} : { status: response.status }),
      ...(retryAfterMillis === undefined ? {} : { retryAfterMillis })
    })
  )
}

/** The part that a 206 answer has, if it is the one asked for. */
const partOf = (response: PeerResponse, asked: string): Pick<PeerAnswer, "size" | "range"> | undefined => {
  if (response.contentRange === undefined) return undefined
  const { end, size, start } = response.contentRange
  const expected = ByteRange.parse(asked, size)
  return Result.isSuccess(expected) &&
      Option.exists(expected.success, (range) => range.start === start && range.end === end + 1)
    ? { size, range: { start, end: end + 1 } }
    : undefined
}

/** `Retry-After` in seconds (RFC 9110, section 10.2.3), as registries send it. */
const retryAfter = ({ headers }: PeerResponse): number | undefined => {
  const seconds = headers.get("retry-after")
  return seconds !== undefined && /^[0-9]{1,6}$/.test(seconds) ? Number(seconds) * 1000 : undefined
}
