/**
 * Small bodies, read whole into memory and verified before any byte of them is answered. All of them together have a fixed amount
 * of memory.
 */
import type * as Digest from "@spegel-ts/oci/Digest"
import * as ManifestShape from "@spegel-ts/oci/ManifestShape"
import * as MediaType from "@spegel-ts/oci/MediaType"
import type { Peer } from "@spegel-ts/router/Peer"
import { PeerRefused } from "@spegel-ts/transfer/PeerError"
import type { Judgement } from "@spegel-ts/transfer/PeerTransport"
import { Deferred, Effect, Option, type Scope, Semaphore } from "effect"
import { ContentCorrupted, NoMemoryForBody, type PeerError } from "../../MirrorError.ts"
import * as PeerSpans from "../observe/PeerSpans.ts"
import type { AttemptEntry } from "../observe/PullRecord.ts"
import { ContentHash } from "../verify/ContentHash.ts"
import { GrowingBuffer } from "./GrowingBuffer.ts"
import { nameOf, type PeerAnswer } from "./PeerAnswer.ts"
import { SharedMemory } from "./SharedMemory.ts"

/** A whole body whose digest is right. */
export interface BufferedBody {
  /** At the one address that answered. */
  readonly peer: Peer
  readonly digest: Digest.Digest
  readonly mediaType: string
  readonly bytes: Uint8Array
}

export interface Reading {
  /** The attempt's entry in the record of the pull: counts the bytes that come. */
  readonly entry: AttemptEntry
  /** Judges the peer's throughput. */
  readonly judgement: Judgement
}

export interface BufferedBodies {
  /** The whole body of a blob; none if there is no memory for it. The memory is given back with the scope. */
  readonly blob: (
    answer: PeerAnswer,
    reading: Reading
  ) => Effect.Effect<Option.Option<BufferedBody>, PeerError, Scope.Scope>
  /**
   * The whole body of a manifest. Memory is taken as bytes come. Reading fails if other manifests need memory and this one has most
   * of it, or if there is none for half a second. A large manifest gives its memory back with the scope, and takes none that others
   * need; others do as soon as they are complete, for then the answer's own memory is enough (`BodyMemory`). So neither peers that
   * crawl nor clients that take nothing keep manifests of usual size from being read.
   */
  readonly manifest: (answer: PeerAnswer, reading: Reading) => Effect.Effect<BufferedBody, PeerError, Scope.Scope>
}

const checked = ({ size }: PeerAnswer) => PeerSpans.verification(size, true)

/** Most manifests are smaller. In bytes. */
const firstManifestMemory = 16 * 1024
/** Larger ones are rare. In bytes. */
const largeManifest = 256 * 1024
/** The share of the manifests' memory that large ones have. */
const shareOfLarge = 0.75
/** How long a manifest waits for memory, in milliseconds: upstream has it too. */
const maxWaitMillis = 500

/** `memory` is in bytes. */
export const make = Effect.fnUntraced(function*(memory: number) {
  // Blobs must not keep manifests from being verified, and so from being answered.
  const manifestMemory = Math.floor(memory / 8)
  const largeMemory = Math.floor(shareOfLarge * manifestMemory)
  const largeManifests = new SharedMemory(largeMemory, maxWaitMillis)
  const manifests = new SharedMemory(manifestMemory - largeMemory, maxWaitMillis)
  const blobs = yield* Semaphore.make(memory - manifestMemory)

  return {
    blob: Effect.fnUntraced(function*(answer, reading) {
      const { digest, mediaType, peer, size } = answer
      const taken = yield* Effect.acquireRelease(
        Semaphore.takeIfAvailable(blobs, size),
        (taken) => taken ? Semaphore.release(blobs, size) : Effect.void
      )
      if (!taken) return Option.none()
      const bytes = yield* checked(answer)(
        readVerified(answer, reading, new GrowingBuffer(reading.entry, size, size, undefined))
      )
      return Option.some({ peer, digest, mediaType, bytes })
    }),
    manifest: Effect.fnUntraced(function*(answer, reading) {
      const lost = Deferred.makeUnsafe<never, NoMemoryForBody>()
      const isLarge = answer.size > largeManifest
      const share = yield* Effect.acquireRelease(
        Effect.sync(() =>
          (isLarge ? largeManifests : manifests).open(() =>
            Deferred.doneUnsafe(
              lost,
              Effect.fail(new NoMemoryForBody({ peer: nameOf(answer.peer), size: answer.size }))
            )
          )
        ),
        (share) => Effect.sync(() => share.release())
      )
      const first = Math.min(answer.size, firstManifestMemory)
      const reserved = Effect.callback<void>((resume) => {
        if (share.take(first, () => resume(Effect.void))) resume(Effect.void)
      })
      const read = Effect.suspend(() =>
        readVerified(answer, reading, new GrowingBuffer(reading.entry, answer.size, first, share))
      )
      const bytes = yield* checked(answer)(Effect.raceFirst(Effect.andThen(reserved, read), Deferred.await(lost)))
      if (isLarge) share.keep()
      else share.release()
      const { digest, peer } = answer
      return { peer, digest, mediaType: yield* manifestType(answer, bytes), bytes }
    })
  } satisfies BufferedBodies
})

const readVerified = Effect.fnUntraced(function*(
  { digest, peer, response }: PeerAnswer,
  { judgement }: Reading,
  body: GrowingBuffer
): Effect.fn.Return<Buffer, PeerError> {
  yield* response.relay(body, judgement)
  const { bytes } = body
  if (!new ContentHash(digest).update(bytes).matches()) {
    return yield* new ContentCorrupted({ peer: nameOf(peer), content: digest })
  }
  return bytes
})

/** How much of a manifest is parsed in one turn of the event loop, in bytes: thousands of keys take some milliseconds. */
const pieceSize = 16 * 1024

/**
 * The media type of a verified manifest. The peer says what its containerd keeps it as, which is what upstream said. If the bytes
 * say otherwise, the peer is not believed; if neither names a type, there is no manifest to answer with.
 */
const manifestType = Effect.fnUntraced(function*(
  answer: PeerAnswer,
  bytes: Uint8Array
): Effect.fn.Return<string, PeerRefused> {
  const reader = new ManifestShape.ManifestReader()
  for (let at = 0; at < bytes.length; at += pieceSize) {
    if (at > 0) yield* Effect.yieldNow
    reader.push(bytes.subarray(at, at + pieceSize))
  }
  const said = [new Set([MediaType.ofHeader(answer.mediaType)])]
  const type = Option.flatMap(reader.end(), (shape) => ManifestShape.typeOf(shape, said))
  if (Option.isSome(type)) return type.value
  return yield* new PeerRefused({
    peer: nameOf(answer.peer),
    reason: `answered with a manifest of type ${answer.mediaType || "unknown"}`
  })
})
