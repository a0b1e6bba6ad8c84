/**
 * Downloads under way of this node's containerd, which are what most requests are for. They tell the size that a blob
 * has to have; and where one got wrong bytes, it is in the way of the next pull.
 *
 * A large body is found to be wrong at its end, when all but the last chunk is in containerd's ingest. containerd keeps
 * it, and until its garbage collector comes each new pull commits the same bytes again and fails. So the ingest is
 * discarded, once no pull can make it right any more.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { ContentStore, type Ingest, type StoreUnavailable } from "@spegel-ts/content/ContentStore"
import type * as Digest from "@spegel-ts/oci/Digest"
import { Effect, Option, Schedule, type Scope, Stream } from "effect"
import { createReadStream } from "node:fs"
import * as ContentHash from "./ContentHash.ts"
import * as RegistryMetrics from "./RegistryMetrics.ts"

export interface LocalIngests {
  /** The size in bytes that content has by the word of its image's manifest; none where it is not being downloaded. */
  readonly sizeOf: (digest: Digest.Digest) => Effect.Effect<Option.Option<number>>
  /** A client is being sent the content while the scope is open. */
  readonly serving: (digest: Digest.Digest) => Effect.Effect<void, never, Scope.Scope>
  /** Downloads of the content under way now may have wrong bytes: sees to them in the background. */
  readonly suspect: (digest: Digest.Digest) => Effect.Effect<void>
}

/** Fast at first, since the next pull may come at once. */
const polling = Schedule.min([Schedule.exponential("10 millis", 1.1), Schedule.spaced("1 second")])
/** A download that is not complete may be waiting for upstream. */
const quietMillis = 5000
const watchTime = "10 minutes"

type State = "gone" | "running" | "right" | "over"

/** Watches end with the scope. */
export const make = Effect.gen(function*() {
  const store = yield* ContentStore
  const scope = yield* Effect.scope
  const serving = new Map<Digest.Digest, number>()
  const watched = new Set<string>()

  const ingestsOf = (digest: Digest.Digest) =>
    store.inProgress.pipe(Stream.filter((ingest) => ingest.digest === digest), Stream.runCollect)

  const known = (digest: Digest.Digest) => Effect.orElseSucceed(ingestsOf(digest), () => [])

  /** What has become of an ingest: told by its path, which a later download of the same content does not have. */
  const look = Effect.fnUntraced(function*(
    { digest, path }: Ingest,
    last: { written: number; since: number }
  ): Effect.fn.Return<State, StoreUnavailable> {
    const ingest = (yield* ingestsOf(digest)).find((ingest) => ingest.path === path)
    if (ingest === undefined) return "gone"
    const now = yield* MonotonicTime.millis
    if (ingest.written !== last.written || serving.has(digest)) {
      last.written = ingest.written
      last.since = now
      return "running"
    }
    if (ingest.written < ingest.size) return now - last.since < quietMillis ? "running" : "over"
    // The wrong bytes may have been in the chunk that was held back; then the rest, from elsewhere, made it right.
    const isRight = ContentHash.matches(digest, createReadStream(path, { highWaterMark: 256 * 1024 }))
    return (yield* Effect.orElseSucceed(isRight, () => false)) ? "right" : "over"
  })

  const watch = Effect.fnUntraced(function*(ingest: Ingest) {
    const last = { written: -1, since: 0 }
    const state = yield* look(ingest, last).pipe(
      Effect.repeat({ schedule: polling, until: (state) => state !== "running" }),
      Effect.timeoutOrElse({ duration: watchTime, orElse: () => Effect.succeed<State>("running") })
    )
    if (state !== "over") return yield* Effect.logDebug(`a download of ${ingest.digest} with wrong bytes is ${state}`)
    yield* store.discard(ingest)
    yield* RegistryMetrics.ingestDiscarded
    yield* Effect.logWarning(
      `discarded a download of ${ingest.digest} with wrong bytes, so that the next pull succeeds`
    )
  })

  return {
    sizeOf: (digest) =>
      Effect.map(known(digest), ([ingest]) => Option.map(Option.fromUndefinedOr(ingest), ({ size }) => size)),
    serving: (digest) =>
      Effect.acquireRelease(
        Effect.sync(() => serving.set(digest, (serving.get(digest) ?? 0) + 1)),
        () =>
          Effect.sync(() => {
            const left = (serving.get(digest) ?? 1) - 1
            if (left === 0) serving.delete(digest)
            else serving.set(digest, left)
          })
      ),
    suspect: Effect.fnUntraced(function*(digest) {
      for (const ingest of yield* known(digest)) {
        if (watched.has(ingest.path)) continue
        watched.add(ingest.path)
        yield* watch(ingest).pipe(
          Effect.catchCause((cause) => Effect.logWarning("a download with wrong bytes was left", cause)),
          Effect.ensuring(Effect.sync(() => watched.delete(ingest.path))),
          Effect.forkIn(scope)
        )
      }
    })
  } satisfies LocalIngests
})
