/**
 * Small bodies in hand: read whole and verified before any byte of them is answered. All of them together have a fixed
 * amount of memory.
 */
import * as Digest from "@spegel-ts/oci/Digest"
import * as ManifestShape from "@spegel-ts/oci/ManifestShape"
import * as MediaType from "@spegel-ts/oci/MediaType"
import type { Peer } from "@spegel-ts/router/Peer"
import { Effect, Option, type Scope, Semaphore } from "effect"
import { createHash } from "node:crypto"
import { ContentCorrupted, type PeerError, PeerRefused } from "./MirrorError.ts"
import { type ContentRequest, nameOf, type Offer } from "./Offer.ts"
import type { AttemptEntry } from "./PullLedger.ts"
import * as PullSpans from "./PullSpans.ts"

/** A body whose digest is right. */
export interface Held {
  readonly peer: Peer
  readonly digest: Digest.Digest
  readonly mediaType: string
  readonly bytes: Uint8Array
}

export interface HeldBodies {
  /**
   * The whole body of an offer, its memory given back with the scope; what comes is counted in `entry`. A manifest waits
   * for memory; where there is none for a blob, there is none of it.
   */
  readonly hold: (
    request: ContentRequest,
    offer: Offer,
    entry: AttemptEntry
  ) => Effect.Effect<Option.Option<Held>, PeerError, Scope.Scope>
}

/** `memory` is in bytes. */
export const make = Effect.fnUntraced(function*(memory: number) {
  // Blobs must not keep manifests from being verified, and so from being answered.
  const manifestMemory = Math.floor(memory / 8)
  const manifests = yield* Semaphore.make(manifestMemory)
  const blobs = yield* Semaphore.make(memory - manifestMemory)

  const reserve = (request: ContentRequest, size: number): Effect.Effect<boolean, never, Scope.Scope> =>
    request._tag === "Manifest"
      ? Effect.as(Semaphore.takeScoped(manifests, Math.min(size, manifestMemory)), true)
      : Effect.acquireRelease(
        Semaphore.takeIfAvailable(blobs, size),
        (taken) => taken ? Semaphore.release(blobs, size) : Effect.void
      )

  return {
    hold: Effect.fnUntraced(function*(request, offer, entry) {
      if (!(yield* reserve(request, offer.size))) return Option.none()
      const bytes = yield* PullSpans.verification(offer.size, true)(readVerified(offer, entry))
      const { digest, peer } = offer
      const mediaType = request._tag === "Blob" ? offer.mediaType : yield* manifestType(offer, bytes)
      return Option.some({ peer, digest, mediaType, bytes })
    })
  } satisfies HeldBodies
})

const readVerified = Effect.fnUntraced(function*(
  { digest, peer, response, size }: Offer,
  entry: AttemptEntry
): Effect.fn.Return<Buffer, PeerError> {
  const bytes = Buffer.allocUnsafeSlow(size)
  yield* response.relay({
    space: () => bytes.subarray(entry.bytes),
    write: (chunk) => {
      if (chunk.buffer !== bytes.buffer) chunk.copy(bytes, entry.bytes)
      entry.bytes += chunk.length
      return true
    }
  })
  const algorithm = Digest.algorithm(digest)
  if (`${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}` !== digest) {
    return yield* new ContentCorrupted({ peer: nameOf(peer), content: digest })
  }
  return bytes
})

/** How much of a manifest is looked at in one turn of the event loop, in bytes. */
const pieceSize = 64 * 1024

/**
 * What a verified manifest is. The peer says what its containerd keeps it as, which is what upstream said; it is not
 * believed where the bytes tell otherwise, and without either there is no manifest to answer with.
 */
const manifestType = Effect.fnUntraced(function*(
  offer: Offer,
  bytes: Uint8Array
): Effect.fn.Return<string, PeerRefused> {
  const reader = new ManifestShape.ManifestReader()
  for (let at = 0; at < bytes.length; at += pieceSize) {
    if (at > 0) yield* Effect.yieldNow
    reader.push(bytes.subarray(at, at + pieceSize))
  }
  const said = [new Set([MediaType.ofHeader(offer.mediaType)])]
  const type = Option.flatMap(reader.end(), (shape) => ManifestShape.typeOf(shape, said))
  if (Option.isSome(type)) return type.value
  return yield* new PeerRefused({
    peer: nameOf(offer.peer),
    reason: `answered with a manifest of type ${offer.mediaType || "unknown"}`
  })
})
