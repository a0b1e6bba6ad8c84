/**
 * Small bodies in hand: read whole and verified before any byte of them is answered. All of them together have a fixed
 * amount of memory.
 */
import * as Digest from "@spegel-ts/oci/Digest"
import * as ManifestShape from "@spegel-ts/oci/ManifestShape"
import * as MediaType from "@spegel-ts/oci/MediaType"
import type { Peer } from "@spegel-ts/router/Peer"
import { PeerRefused } from "@spegel-ts/transfer/PeerError"
import type { ByteSink, Comparison } from "@spegel-ts/transfer/PeerTransport"
import { Deferred, Effect, Option, type Scope, Semaphore } from "effect"
import { createHash } from "node:crypto"
import { ContentCorrupted, type PeerError } from "../../MirrorError.ts"
import type { AttemptEntry } from "../../PullLog.ts"
import * as PullSpans from "../../PullSpans.ts"
import { nameOf, type Offer } from "./PeerAnswer.ts"
import { type Share, SharedMemory } from "./SharedMemory.ts"

/** A body whose digest is right. */
export interface Held {
  readonly peer: Peer
  readonly digest: Digest.Digest
  readonly mediaType: string
  readonly bytes: Uint8Array
}

/** What reading a body needs of its attempt. */
export interface Reading {
  /** What comes is counted in it. */
  readonly entry: AttemptEntry
  readonly compare: Comparison
}

export interface HeldBodies {
  /** The whole body of a blob, none where there is no memory for it; the memory is given back with the scope. */
  readonly blob: (offer: Offer, reading: Reading) => Effect.Effect<Option.Option<Held>, PeerError, Scope.Scope>
  /**
   * The whole body of a manifest; the memory is given back with the scope. Memory is taken as bytes come. Where others
   * need it and this manifest has most of it, reading it fails.
   */
  readonly manifest: (offer: Offer, reading: Reading) => Effect.Effect<Held, PeerError, Scope.Scope>
}

const checked = ({ size }: Offer) => PullSpans.verification(size, true)

/** Most manifests are smaller. In bytes. */
const firstManifestMemory = 16 * 1024

/** `memory` is in bytes. */
export const make = Effect.fnUntraced(function*(memory: number) {
  // Blobs must not keep manifests from being verified, and so from being answered.
  const manifestMemory = Math.floor(memory / 8)
  const manifests = new SharedMemory(manifestMemory)
  const blobs = yield* Semaphore.make(memory - manifestMemory)

  return {
    blob: Effect.fnUntraced(function*(offer, reading) {
      const { digest, mediaType, peer, size } = offer
      const taken = yield* Effect.acquireRelease(
        Semaphore.takeIfAvailable(blobs, size),
        (taken) => taken ? Semaphore.release(blobs, size) : Effect.void
      )
      if (!taken) return Option.none()
      const bytes = yield* checked(offer)(
        readVerified(offer, reading, new HeldBody(reading.entry, size, size, undefined))
      )
      return Option.some({ peer, digest, mediaType, bytes })
    }),
    manifest: Effect.fnUntraced(function*(offer, reading) {
      const lost = Deferred.makeUnsafe<never, PeerRefused>()
      const reason = `sends a manifest of ${offer.size} bytes, whose memory others need`
      const share = yield* Effect.acquireRelease(
        Effect.sync(() =>
          manifests.open(() =>
            Deferred.doneUnsafe(lost, Effect.fail(new PeerRefused({ peer: nameOf(offer.peer), reason })))
          )
        ),
        (share) => Effect.sync(() => share.release())
      )
      const first = Math.min(offer.size, firstManifestMemory)
      const reserved = Effect.callback<void>((resume) => {
        if (share.take(first, () => resume(Effect.void))) resume(Effect.void)
      })
      const read = Effect.suspend(() =>
        readVerified(offer, reading, new HeldBody(reading.entry, offer.size, first, share))
      )
      const bytes = yield* checked(offer)(Effect.raceFirst(Effect.andThen(reserved, read), Deferred.await(lost)))
      share.keep()
      const { digest, peer } = offer
      return { peer, digest, mediaType: yield* manifestType(offer, bytes), bytes }
    })
  } satisfies HeldBodies
})

/** A body that is read into memory of its own, which grows as bytes come where it has a share. */
class HeldBody implements ByteSink {
  /** Counts the bytes that have come. */
  readonly #entry: AttemptEntry
  readonly #size: number
  readonly #share: Share | undefined
  #bytes: Buffer

  /** Of `size` bytes, for the first `room` of which there is memory. */
  constructor(entry: AttemptEntry, size: number, room: number, share: Share | undefined) {
    this.#entry = entry
    this.#size = size
    this.#share = share
    this.#bytes = Buffer.allocUnsafeSlow(room)
  }

  /** All of it, once it is complete. */
  get bytes(): Buffer {
    return this.#bytes
  }

  space(): Buffer {
    return this.#bytes.subarray(this.#entry.bytes)
  }

  write(chunk: Buffer, resume: () => void): boolean {
    const filled = this.#entry.bytes + chunk.length
    const room = this.#bytes.length
    const enough = filled < room || room === this.#size
    const wanted = Math.min(this.#size, Math.max(2 * room, filled))
    if (enough || this.#share === undefined) this.#append(chunk)
    else {
      const grow = () => {
        this.#bytes = Buffer.concat([this.#bytes.subarray(0, this.#entry.bytes)], wanted)
        this.#append(chunk)
      }
      const taken = this.#share.take(wanted - room, () => {
        grow()
        resume()
      })
      if (!taken) return false
      grow()
    }
    return true
  }

  #append(chunk: Buffer): void {
    if (chunk.buffer !== this.#bytes.buffer) chunk.copy(this.#bytes, this.#entry.bytes)
    this.#entry.bytes += chunk.length
  }
}

const readVerified = Effect.fnUntraced(function*(
  { digest, peer, response }: Offer,
  { compare }: Reading,
  body: HeldBody
): Effect.fn.Return<Buffer, PeerError> {
  yield* response.relay(body, compare)
  const { bytes } = body
  if (createHash(Digest.algorithm(digest)).update(bytes).digest("hex") !== Digest.hex(digest)) {
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
