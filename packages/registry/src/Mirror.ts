/**
 * The resolve policy: who is asked for content that this node lacks, how long, how often, and what happens when a peer
 * fails. Every failure has a tag, and the tag decides the next step.
 *
 * The policy: wait `resolveTimeout` for the lookup to name a peer while nothing is in flight, try at most
 * `resolveRetries` peers, give each `firstByteTimeout` to send its first body byte. A peer that fails in the body is
 * replaced by the next at the byte reached. Where a first byte is late, the next peer is asked beside (`PeerRace`).
 */
import { openStart } from "@spegel-ts/oci/ByteRange"
import * as Digest from "@spegel-ts/oci/Digest"
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Reference from "@spegel-ts/oci/Reference"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import type { Peer } from "@spegel-ts/router/Peer"
import { Router } from "@spegel-ts/router/Router"
import { Clock, Duration, Effect, Exit, Option, Result, Scope, Stream } from "effect"
import { createHash } from "node:crypto"
import type { ByteSink } from "./Exchange.ts"
import {
  ContentCorrupted,
  type HashLost,
  type MirrorError,
  type PeerError,
  PeerRefused,
  PeerStalled
} from "./MirrorError.ts"
import { PeerMemory } from "./PeerMemory.ts"
import * as PeerRace from "./PeerRace.ts"
import { type PeerResponse, PeerTransport } from "./PeerTransport.ts"
import * as RegistryMetrics from "./RegistryMetrics.ts"
import { parseContentRange } from "./ResponseHead.ts"
import * as VerifyingSink from "./VerifyingSink.ts"

export interface MirrorOptions {
  /** How long to wait for a peer to be found while none is being asked. */
  readonly resolveTimeout: Duration.Duration
  /** How many peers may be tried for one request. */
  readonly resolveRetries: number
  /** How long a peer may take to send the first byte of a body. */
  readonly firstByteTimeout: Duration.Duration
  /** Bodies to this size in bytes are verified before any of them is answered. */
  readonly maxBufferedSize: number
}

export type ContentRequest = Extract<DistributionRequest.DistributionRequest, { readonly _tag: "Blob" | "Manifest" }>

/** Content that peers have and will send. */
export interface MirroredContent {
  readonly peer: Peer
  readonly digest: Digest.Digest
  readonly mediaType: string
  /** Size of the whole in bytes. */
  readonly size: number
  /** Offset of the first byte that `body` gives. */
  readonly start: number
  readonly body: MirroredBody
  /** Peers tried in vain and why. */
  readonly tried: ReadonlyArray<string>
}

export type MirroredBody =
  | { readonly _tag: "Verified"; readonly bytes: Uint8Array }
  | {
    readonly _tag: "Stream"
    /** Fails when no peer is left that can go on; the last bytes are given only if the digest is right. */
    readonly relay: (sink: ByteSink) => Effect.Effect<void, MirrorError | ContentCorrupted | HashLost>
  }

export interface Mirror {
  /** The content asked for, from a peer. Everything that it opens closes with the scope. */
  readonly fetch: (
    request: ContentRequest,
    name: Reference.Reference
  ) => Effect.Effect<MirroredContent, MirrorError, Scope.Scope>
}

/** What a peer's answer says that it is sending. */
interface Offer {
  readonly peer: Peer
  readonly response: PeerResponse
  readonly digest: Digest.Digest
  readonly mediaType: string
  readonly size: number
  readonly start: number
}

const { nameOf } = PeerRace

/** The digest or tag that a request asks for: what it is advertised under. */
export const contentOf = (request: ContentRequest, name: Reference.Reference): string =>
  request._tag === "Blob"
    ? request.digest
    : request.reference._tag === "Digest"
    ? request.reference.digest
    : Reference.name(name)

export const make = Effect.fn("Mirror.make")(function*(options: MirrorOptions) {
  const router = yield* Router
  const transport = yield* PeerTransport
  const verifier = yield* VerifyingSink.make
  const memory = new PeerMemory()
  const { firstByteTimeout, maxBufferedSize, resolveRetries, resolveTimeout } = options

  /** Asks one peer from `start` on. */
  const ask = Effect.fn("Mirror.ask")(function*(request: ContentRequest, peer: Peer, start: number) {
    yield* Effect.annotateCurrentSpan({ "peer.id": peer.id, "peer.address": peer.addresses[0] ?? "", start })
    // A HEAD promises what a GET will give, so it is a GET that has to succeed.
    const printed = DistributionRequest.print({
      ...request,
      method: request._tag === "Manifest" ? "GET" : request.method,
      mirrored: true,
      range: start === 0 ? undefined : `bytes=${start}-`
    })
    const refused = (reason: string, status?: number) =>
      new PeerRefused({ peer: nameOf(peer), reason, ...(status === undefined ? {} : { status }) })
    const response = yield* transport.request({
      ...printed,
      addresses: peer.addresses,
      port: peer.registryPort
    }).pipe(Effect.timeoutOrElse({
      duration: firstByteTimeout,
      orElse: () =>
        Effect.fail(new PeerStalled({ peer: nameOf(peer), waitedMillis: Duration.toMillis(firstByteTimeout) }))
    }))
    if (response.status !== (start === 0 ? 200 : 206)) {
      return yield* refused(`answered ${response.status}`, response.status)
    }
    const size = start === 0
      ? response.contentLength
      : yield* Effect.fromResult(parseContentRange(response.headers.get("content-range"))).pipe(
        Effect.filterOrFail((range) => range.start === start && range.end === range.size - 1),
        Effect.map((range) => range.size),
        Effect.mapError(() => refused("answered with another range than asked"))
      )
    if (response.contentLength !== size - start) return yield* refused("answered with a wrong Content-Length")
    return { peer, response, size, start, ...(yield* identify(request, response, refused)) } satisfies Offer
  })

  /** Reads the whole body of an offer and checks its digest. */
  const verify = Effect.fn("Mirror.verify")(function*(offer: Offer) {
    const bytes = Buffer.allocUnsafe(offer.size)
    let filled = 0
    yield* offer.response.relay({
      write: (chunk) => {
        filled += chunk.copy(bytes, filled)
        return true
      }
    })
    const algorithm = Digest.algorithm(offer.digest)
    if (`${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}` !== offer.digest) {
      return yield* new ContentCorrupted({ peer: nameOf(offer.peer), content: offer.digest })
    }
    return bytes
  })

  const fetch = Effect.fn("Mirror.fetch")(function*(request: ContentRequest, name: Reference.Reference) {
    const content = contentOf(request, name)
    const { race, tried } = yield* PeerRace.make({
      content,
      // More than may be asked: some may be known to fail, and of those that are not the less busy is chosen.
      peers: router.lookup(ContentKey.make(content), { count: 2 * resolveRetries }).pipe(
        Stream.catch((error) => Stream.fromEffect(Effect.logDebug(error.message)).pipe(Stream.drain))
      ),
      memory,
      attempts: resolveRetries,
      resolveTimeout
    })

    /** A peer failed after its first byte: its connection is let go of at once. */
    const leave = Effect.fnUntraced(function*(offer: Offer, scope: Scope.Closeable, error: PeerError) {
      yield* Scope.close(scope, Exit.void)
      tried.push(error.message)
      memory.failed(offer.peer, content, error, yield* Clock.currentTimeMillis)
    })

    /** Wrong bytes: nobody who sent any of them is asked for this content again. */
    const quarantine = Effect.fnUntraced(function*(peers: ReadonlyArray<Peer>, error: ContentCorrupted) {
      memory.corrupted(peers, content, yield* Clock.currentTimeMillis)
      yield* Effect.forEach(peers, ({ id }) => RegistryMetrics.corrupted(id), { discard: true })
      yield* Effect.logWarning(`${error.message}: not asked for it any more`).pipe(
        Effect.annotateLogs({ peers: peers.map(nameOf).join(", ") })
      )
    })

    const start = request._tag === "Manifest" ? 0 : Option.getOrElse(openStart(request.range), () => 0)

    /** An offer, with the whole in hand where it is small: then it is verified. */
    const bring = (): Effect.Effect<MirroredContent, MirrorError> =>
      Effect.gen(function*() {
        const { scope, value: offer } = yield* race((peer) =>
          ask(request, peer, start).pipe(
            Effect.filterOrFail(
              ({ size }) => request._tag === "Blob" || size <= maxBufferedSize,
              ({ size }) => new PeerRefused({ peer: nameOf(peer), reason: `a manifest of ${size} bytes` })
            ),
            // A part cannot be verified: the whole is small.
            Effect.flatMap((offer) =>
              offer.size <= maxBufferedSize && start > 0 ? ask(request, peer, 0) : Effect.succeed(offer)
            )
          )
        )
        const { digest, mediaType, peer, size } = offer
        const found = { peer, digest, mediaType, size, tried }
        if (request._tag === "Blob" && request.method === "HEAD") {
          return { ...found, start: 0, body: { _tag: "Verified" as const, bytes: new Uint8Array() } }
        }
        if (size > maxBufferedSize) {
          const relay = (sink: ByteSink) =>
            Effect.scoped(
              Effect.flatMap(verifier.sink(offer, sink), (sink) => relayFrom(offer, scope, [peer], sink))
            )
          return { ...found, start, body: { _tag: "Stream" as const, relay } }
        }
        const verified = yield* Effect.result(verify(offer))
        if (Result.isSuccess(verified)) {
          return { ...found, start, body: { _tag: "Verified" as const, bytes: verified.success.subarray(start) } }
        }
        yield* leave(offer, scope, verified.failure)
        if (verified.failure._tag === "ContentCorrupted") yield* quarantine([peer], verified.failure)
        return yield* bring()
      })
    return yield* bring()

    /** Relays an offer; where it breaks, another peer goes on at the byte reached. */
    function relayFrom(
      offer: Offer,
      scope: Scope.Closeable,
      /** Those whose bytes were passed on. */
      senders: ReadonlyArray<Peer>,
      sink: VerifyingSink.VerifyingSink
    ): Effect.Effect<void, MirrorError | ContentCorrupted | HashLost> {
      return Effect.gen(function*() {
        const lie = Effect.andThen(
          sink.wrong,
          Effect.fail(new ContentCorrupted({ peer: nameOf(offer.peer), content: offer.digest }))
        )
        const outcome = yield* Effect.result(Effect.raceFirst(offer.response.relay(sink), lie))
        if (Result.isSuccess(outcome)) return
        const error = outcome.failure
        if (error._tag === "HashLost") return yield* error
        yield* leave(offer, scope, error)
        if (error._tag === "ContentCorrupted") {
          yield* quarantine(senders, error)
          return yield* error
        }
        yield* Effect.logInfo(`${error.message}: going on at byte ${sink.offset()} of ${content} with another peer`)
        const next = yield* race((peer) =>
          ask(request, peer, sink.offset()).pipe(Effect.filterOrFail(
            ({ size }) => size === offer.size,
            () => new PeerRefused({ peer: nameOf(peer), reason: "has it in another size" })
          ))
        )
        yield* relayFrom(next.value, next.scope, [...senders, next.value.peer], sink)
      })
    }
  })

  return { fetch } satisfies Mirror
})

/** Digest and media type of an answer: what was asked for, or, for a tag, what the peer says that it points to. */
const identify = (
  request: ContentRequest,
  response: PeerResponse,
  refused: (reason: string) => PeerRefused
): Effect.Effect<{ readonly digest: Digest.Digest; readonly mediaType: string }, PeerRefused> => {
  if (request._tag === "Blob") return Effect.succeed({ digest: request.digest, mediaType: MediaType.octetStream })
  const mediaType = response.headers.get("content-type") ?? ""
  if (!MediaType.isManifest(mediaType)) return Effect.fail(refused(`a manifest of type ${mediaType || "unknown"}`))
  if (request.reference._tag === "Digest") return Effect.succeed({ digest: request.reference.digest, mediaType })
  const digest = Digest.fromString(response.headers.get("docker-content-digest") ?? "")
  return Option.isSome(digest)
    ? Effect.succeed({ digest: digest.value, mediaType })
    : Effect.fail(refused("a tag without Docker-Content-Digest"))
}
