/**
 * Disks and memory err. A peer that got wrong bytes from this node says so, and this node then reads what it holds: a
 * blob that is not what its digest says is not given to peers any more, so that it costs the cluster one failed pull.
 *
 * Anybody can say so, and reading costs time: checks run one at a time, a tenth of the time at most, and not twice for
 * the same blob within ten minutes.
 */
import * as Background from "@spegel-ts/background/Background"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import type * as Digest from "@spegel-ts/oci/Digest"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router } from "@spegel-ts/router/Router"
import { Duration, Effect, Metric, Queue } from "effect"
import * as ContentHash from "./ContentHash.ts"
import * as MonotonicTime from "./MonotonicTime.ts"

/** Header of a request by which a peer says that it got wrong bytes of the blob that it names. */
export const suspectHeader = "x-spegel-suspect"

export interface SelfCheck {
  /** Has a blob checked in the background, unless it was lately or too many others wait. */
  readonly suspect: (digest: Digest.Digest) => Effect.Effect<void>
  /** Whether a check has found that a blob is not what its digest says. */
  readonly isDamaged: (digest: Digest.Digest) => boolean
}

const maxWaiting = 16
const maxRemembered = 10_000
const againAfterMillis = 10 * 60_000
/** Time to rest after a check, as a multiple of the time that it took. */
const rest = 9

const damagedBlobs = Metric.counter("spegel_content_damaged_total", {
  description: "Blobs of this node that are not what their digests say, and are not given to peers any more",
  incremental: true
})

/** Checks end with the scope. */
export const make = Effect.gen(function*() {
  const store = yield* ContentStore
  const router = yield* Router
  const waiting = yield* Queue.dropping<Digest.Digest>(maxWaiting)
  const checkedAt = new Map<Digest.Digest, number>()
  const damaged = new Set<Digest.Digest>()

  const isRight = Effect.fnUntraced(function*(digest: Digest.Digest) {
    const source = yield* store.open(digest)
    return yield* ContentHash.matches(
      digest,
      source._tag === "File" ? source.handle.createReadStream({ start: 0, autoClose: false }) : toChunks(source.bytes)
    )
  }, Effect.scoped)

  const check = Effect.fnUntraced(function*(digest: Digest.Digest) {
    const begun = yield* MonotonicTime.millis
    if (!(yield* isRight(digest))) {
      damaged.add(digest)
      yield* router.withdraw([ContentKey.make(digest)])
      yield* Metric.update(damagedBlobs, 1)
      yield* Effect.logError(
        `this node's copy of ${digest} is damaged, and is not given to peers any more: check the disk, remove the images that use it and pull them again`
      )
    }
    yield* Effect.sleep(Duration.millis(((yield* MonotonicTime.millis) - begun) * rest))
  })

  const checks = Queue.take(waiting).pipe(
    Effect.flatMap((digest) =>
      // What cannot be read is not held, or the store is away.
      Effect.catch(check(digest), ({ message }) => Effect.logDebug(message))
    ),
    Effect.forever
  )
  yield* Background.keepRunning("self check", checks)

  return {
    isDamaged: (digest) => damaged.has(digest),
    suspect: Effect.fnUntraced(function*(digest) {
      const now = yield* MonotonicTime.millis
      if (damaged.has(digest) || now - (checkedAt.get(digest) ?? -Infinity) < againAfterMillis) return
      if (!(yield* Queue.offer(waiting, digest))) return
      if (checkedAt.size >= maxRemembered) checkedAt.clear()
      checkedAt.set(digest, now)
    })
  } satisfies SelfCheck
})

const toChunks = async function*(bytes: Uint8Array): AsyncGenerator<Buffer> {
  yield Buffer.from(bytes)
}
