/**
 * Checks this node's own blobs against their digests, since disks and memory err. A peer that got wrong bytes from this node
 * says so, and this node then reads the blob: one that is damaged is not given to peers any more, so that it costs the cluster
 * one failed pull. When it was replaced, as by pulling its image again, it is read once more, and given to peers if it is right.
 *
 * A peer can say so of any blob, and reading costs time: checks run one at a time, for a tenth of the time at most, and not twice for
 * the same blob within ten minutes. In a cluster with a key, only peers that proved that they know it are heard.
 */
import * as Background from "@spegel-ts/background/Background"
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { PeerAuth, type PeerAuthMode } from "@spegel-ts/cluster-key/PeerAuth"
import { type BlobSource, type ContentChange, ContentStore } from "@spegel-ts/content/ContentStore"
import type * as Digest from "@spegel-ts/oci/Digest"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router } from "@spegel-ts/router/Router"
import { Duration, Effect, Latch, Queue, Stream } from "effect"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import * as ContentHash from "./ContentHash.ts"

export interface Scrubber {
  /**
   * Has a blob checked in the background, unless it was checked lately or too many others wait. `isProved` says whether the peer
   * that suspects it has proved itself by its request; otherwise it is heard only where nobody proves anything.
   */
  readonly suspect: (digest: Digest.Digest, isProved: boolean) => Effect.Effect<void>
  /** Whether a check has found that a blob is not what its digest says, and no later one that it is right again. */
  readonly isDamaged: (digest: Digest.Digest) => Effect.Effect<boolean>
}

const maxWaiting = 16
const maxRemembered = 10_000
const againAfterMillis = 10 * 60_000
/** How long to rest after a check, as a multiple of the time that it took. */
const rest = 9

interface Parts {
  readonly peerAuth: PeerAuthMode
  readonly store: ContentStore["Service"]
  readonly router: Router["Service"]
  /** Blobs to check. */
  readonly waiting: Queue.Queue<Digest.Digest>
  readonly checkedAt: BoundedMap<Digest.Digest, number>
  /** Blobs that were found damaged, and which copy of each. */
  readonly damaged: Map<Digest.Digest, unknown>
  /** Open while any is damaged. */
  readonly anyDamaged: Latch.Latch
}

/** Checks end with the scope. */
export const make = Effect.gen(function*() {
  const parts: Parts = {
    peerAuth: (yield* PeerAuth).mode,
    store: yield* ContentStore,
    router: yield* Router,
    waiting: yield* Queue.dropping<Digest.Digest>(maxWaiting),
    checkedAt: new BoundedMap(maxRemembered),
    damaged: new Map(),
    anyDamaged: yield* Latch.make(false)
  }
  yield* Background.keepRunning("self check", checks(parts))
  yield* Background.keepRunning("watch of damaged blobs", watchDamaged(parts))
  return {
    isDamaged: (digest) =>
      Effect.suspend(() =>
        parts.damaged.has(digest) ? Effect.as(lookAgain(parts, digest), true) : Effect.succeed(false)
      ),
    suspect: (digest, isProved) => isProved || parts.peerAuth === "off" ? suspect(parts, digest) : Effect.void
  } satisfies Scrubber
})

const suspect = Effect.fnUntraced(function*({ checkedAt, damaged, waiting }: Parts, digest: Digest.Digest) {
  const now = yield* MonotonicTime.millis
  if (damaged.has(digest) || now - (checkedAt.get(digest) ?? -Infinity) < againAfterMillis) return
  if (yield* Queue.offer(waiting, digest)) checkedAt.set(digest, now)
})

const checks = (parts: Parts) =>
  Queue.take(parts.waiting).pipe(
    // A blob that cannot be read is not held, or the store is away.
    Effect.flatMap((digest) => Effect.catch(check(parts, digest), ({ message }) => Effect.logDebug(message))),
    Effect.forever
  )

const check = Effect.fnUntraced(function*(parts: Parts, digest: Digest.Digest) {
  const begun = yield* MonotonicTime.millis
  const source = yield* parts.store.open(digest)
  const copy = yield* copyOf(source)
  const isRight = yield* ContentHash.growing(digest, () => chunksOf(source)).matches
  yield* isRight ? markRepaired(parts, digest) : markDamaged(parts, digest, copy)
  yield* Effect.sleep(Duration.millis(((yield* MonotonicTime.millis) - begun) * rest))
}, Effect.scoped)

/** Tells one copy of a blob from the next: a file by its inode and times, bytes in memory by themselves. */
const copyOf = (source: BlobSource): Effect.Effect<unknown> =>
  source._tag === "Bytes"
    ? Effect.succeed(source.bytes)
    : Effect.promise(() =>
      source.handle.stat({ bigint: true }).then(({ ctimeNs, dev, ino, mtimeNs, size }) =>
        [dev, ino, mtimeNs, ctimeNs, size].join()
      )
    )

const chunksOf = (source: BlobSource) =>
  source._tag === "File" ? source.handle.createReadStream({ start: 0, autoClose: false }) : toChunks(source.bytes)

const toChunks = async function*(bytes: Uint8Array): AsyncGenerator<Buffer> {
  yield Buffer.from(bytes)
}

const markDamaged = Effect.fnUntraced(function*(parts: Parts, digest: Digest.Digest, copy: unknown) {
  const { anyDamaged, damaged, router } = parts
  const isNew = !damaged.has(digest)
  damaged.set(digest, copy)
  yield* anyDamaged.open
  yield* router.withdraw([ContentKey.make(digest)])
  if (isNew) yield* RegistryMetrics.contentDamaged
  yield* Effect.logError(
    `this node's copy of ${digest} is damaged, and is not given to peers any more: check the disk, remove the images that use it and pull them again`
  )
})

const markRepaired = Effect.fnUntraced(function*({ anyDamaged, damaged, router }: Parts, digest: Digest.Digest) {
  if (!damaged.delete(digest)) return
  if (damaged.size === 0) yield* anyDamaged.close
  yield* Effect.logInfo(`this node's copy of ${digest} is right again, and is given to peers`)
  yield* router.advertise([ContentKey.make(digest)])
})

/** Has a blob that was found damaged read again, if there is another copy of it. */
const lookAgain = Effect.fnUntraced(
  function*({ damaged, store, waiting }: Parts, digest: Digest.Digest) {
    if ((yield* copyOf(yield* store.open(digest))) !== damaged.get(digest)) yield* Queue.offer(waiting, digest)
  },
  Effect.scoped,
  (looking) => Effect.ignore(looking)
)

/** Looks again at damaged blobs that were replaced. Changes are not watched while no blob is damaged. */
const watchDamaged = (parts: Parts) =>
  parts.anyDamaged.await.pipe(
    Effect.andThen(
      parts.store.changes.pipe(
        Stream.takeWhile(() => parts.damaged.size > 0),
        Stream.runForEach((change) => lookAgainAfter(parts, change))
      )
    ),
    Effect.forever
  )

const lookAgainAfter = (parts: Parts, change: ContentChange): Effect.Effect<void> =>
  change._tag === "Resync"
    ? Effect.forEach([...parts.damaged.keys()], (digest) => lookAgain(parts, digest), { discard: true })
    : change._tag === "BlobAdded" && parts.damaged.has(change.digest)
    ? lookAgain(parts, change.digest)
    : Effect.void
