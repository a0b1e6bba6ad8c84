/** Asking one peer for content, and judging its answer by its head: a peer is untrusted, and may be of another kind. */
import * as ByteRange from "@spegel-ts/oci/ByteRange"
import * as Digest from "@spegel-ts/oci/Digest"
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import type { Peer } from "@spegel-ts/router/Peer"
import { PeerRefused, PeerStalled } from "@spegel-ts/transfer/PeerError"
import { type PeerResponse, PeerTransport } from "@spegel-ts/transfer/PeerTransport"
import { Duration, Effect, Option, Result, type Scope } from "effect"
import { isIPv6 } from "node:net"
import { type PeerError } from "../../MirrorError.ts"
import * as PullSpans from "../../PullSpans.ts"
import * as SelfCheck from "../verify/Scrubber.ts"
import { maxPatienceMillis } from "./Patience.ts"

export type ContentRequest = Extract<DistributionRequest.DistributionRequest, { readonly _tag: "Blob" | "Manifest" }>

/** What a peer's answer says that it is sending. */
export interface Offer {
  readonly peer: Peer
  readonly response: PeerResponse
  readonly digest: Digest.Digest
  readonly mediaType: string
  /** Size of the whole in bytes. */
  readonly size: number
  /** The part that the body is. */
  readonly range: ByteRange.ByteRange
}

/** A peer as errors and logs name it. */
export const nameOf = ({ addresses: [address = ""], servicePort }: Peer): string =>
  isIPv6(address) ? `[${address}]:${servicePort}` : `${address}:${servicePort}`

export const isWhole = ({ range, size }: Offer): boolean => range.start === 0 && range.end === size

/** The offer, where the whole has the size in bytes that is expected; undefined for any. */
export const sized = (offer: Offer, expected: number | undefined): Effect.Effect<Offer, PeerRefused> =>
  expected === undefined || offer.size === expected ? Effect.succeed(offer) : Effect.fail(
    new PeerRefused({ peer: nameOf(offer.peer), reason: `has ${offer.size} bytes of it and not ${expected}` })
  )

/** The range to ask for; undefined for the whole, of which `bytes=0-` is another name. */
export const rangeOf = (request: ContentRequest): string | undefined => {
  if (request._tag === "Manifest" || request.method === "HEAD") return undefined
  const parsed = ByteRange.parse(request.range, Number.MAX_SAFE_INTEGER)
  const ignored = Result.isSuccess(parsed) && Option.isNone(parsed.success)
  return ignored || Option.contains(ByteRange.openStart(request.range), 0) ? undefined : request.range
}

/** How a peer is asked. */
export interface Asking {
  /** A part of the content, as `Range` names it; undefined for the whole. */
  readonly range?: string | undefined
  /** How long the peer may be silent, in milliseconds, where that is less than others may. */
  readonly patienceMillis?: number | undefined
  /** Asks what the peer holds, and for none of its bytes. */
  readonly head?: boolean
}

/** How to ask peers: each has `firstByteTimeout` for the first byte of its body. */
export const make = Effect.fnUntraced(function*(options: { readonly firstByteTimeout: Duration.Duration }) {
  const transport = yield* PeerTransport
  const { firstByteTimeout } = options

  const ask = Effect.fnUntraced(function*(
    request: ContentRequest,
    peer: Peer,
    { head = false, patienceMillis, range }: Asking = {}
  ): Effect.fn.Return<Offer, PeerError, Scope.Scope> {
    // A HEAD of a manifest promises what a GET will give, so it is a GET that has to succeed.
    const method = head ? "HEAD" : request._tag === "Manifest" ? "GET" : request.method
    const printed = DistributionRequest.print({ ...request, method, mirrored: true, range })
    const firstByteMillis = Math.min(Duration.toMillis(firstByteTimeout), patienceMillis ?? Infinity)
    const refused = (reason: string) => new PeerRefused({ peer: nameOf(peer), reason })
    const response = yield* transport.request({
      ...printed,
      headers: { ...printed.headers, ...(yield* PullSpans.asking(printed)) },
      addresses: peer.addresses,
      port: peer.servicePort,
      patienceMillis: patienceMillis === undefined ? undefined : maxPatienceMillis
    }).pipe(Effect.timeoutOrElse({
      duration: firstByteMillis,
      orElse: () => Effect.fail(new PeerStalled({ peer: nameOf(peer), waitedMillis: firstByteMillis }))
    }))
    yield* PullSpans.peerAnswered(response)
    if (response.status !== (range === undefined ? 200 : 206)) {
      const retryAfterMillis = retryAfter(response)
      return yield* new PeerRefused({
        peer: nameOf(peer),
        reason: `answered ${response.status}`,
        status: response.status,
        ...(retryAfterMillis === undefined ? {} : { retryAfterMillis })
      })
    }
    const part = range === undefined
      ? { size: response.contentLength, range: { start: 0, end: response.contentLength } }
      : partOf(response, range)
    if (part === undefined) return yield* refused("answered with another range than asked")
    if (response.contentLength !== part.range.end - part.range.start) {
      return yield* refused("answered with a wrong Content-Length")
    }
    if (request._tag === "Blob") {
      return { peer, response, ...part, digest: request.digest, mediaType: MediaType.octetStream }
    }
    // What a tag points to is the peer's word until the bytes are here.
    const digest = request.reference._tag === "Digest"
      ? Option.some(request.reference.digest)
      : Digest.fromString(response.headers.get("docker-content-digest") ?? "")
    if (Option.isNone(digest)) return yield* refused("answered a tag without Docker-Content-Digest")
    if (part.size > MediaType.maxManifestSize) return yield* refused(`answered with a manifest of ${part.size} bytes`)
    const mediaType = response.headers.get("content-type") ?? ""
    return { peer, response, ...part, digest: digest.value, mediaType }
  })

  /** Tells a peer that its bytes were wrong, so that it looks at what it holds. */
  const complain = Effect.fnUntraced(
    function*(request: ContentRequest, { addresses, servicePort }: Peer) {
      const { headers, ...printed } = DistributionRequest.print({
        ...request,
        method: "HEAD",
        mirrored: true,
        range: undefined
      })
      yield* transport.request({
        ...printed,
        headers: { ...headers, [SelfCheck.suspectHeader]: "true" },
        addresses,
        port: servicePort
      })
    },
    Effect.scoped,
    Effect.timeout(firstByteTimeout),
    (complaint) => Effect.ignore(complaint)
  )

  return { ask, complain }
})

/** The part that a 206 answer has, where it is the one asked for. */
const partOf = (response: PeerResponse, asked: string): Pick<Offer, "size" | "range"> | undefined => {
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
