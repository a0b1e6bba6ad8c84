/**
 * The fate of a download of containerd, found without hashing its bytes on the way: containerd hashes every blob itself, and
 * renames the file if it is right. If it did not, the file is hashed here; so is one that a killed pull has begun.
 *
 * A commit is never overdue by time alone: containerd's fsync takes as long as the disk does. While it runs the file is open for
 * writing.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { Ingest, IngestState, OpenIngest, StoreUnavailable } from "@spegel-ts/content/ContentStore"
import type { FileWriter } from "@spegel-ts/transfer/FileLease"
import { Effect } from "effect"
import type { GrowingHash } from "./ContentHash.ts"

/**
 * `committed`: containerd found it right. `right`, `wrong`: it was given up, and its bytes were hashed. `unknown`: it was given
 * up before it was complete, or somebody moved it; its senders are not judged.
 */
export type Fate = "committed" | "right" | "wrong" | "unknown"

/**
 * The next event to expect of a download. `growing`: more is written. `complete`: it is committed or given up. `resting`:
 * nothing is expected soon.
 */
export type Phase = "growing" | "complete" | "resting"

export interface DownloadOptions {
  readonly ingest: Ingest
  readonly file: OpenIngest
  /** Whether it began with bytes that another pull had left. */
  readonly isResumed: boolean
  /** Whether bytes are being relayed to it. */
  readonly isBusy: () => boolean
  /** How long after its writer has closed it a complete download is given up, in milliseconds. */
  readonly quietMillis: number
  readonly writerOf: (descriptor: number) => FileWriter
  readonly hash: GrowingHash
  /** Waits until the file is to be looked at again. */
  readonly pause: (phase: Phase) => Effect.Effect<void>
}

/** A rename takes no longer than this. */
const movedMillis = 1000

/** How long a file has to stand still if we cannot tell whether it is open: a slow disk syncs 10 MiB a second. */
const stillMillis = (size: number) => Math.max(3000, (size / (10 * 1024 * 1024)) * 1000)

/** How long nobody has written to a file. */
class Stillness {
  #written = -1
  #modified = -1
  #stillSince = 0
  #closedAt: number | undefined

  /**
   * Whether a download was given up. Its writer closes the file 5 ms before it renames it: one that is still there a while
   * later will not be renamed any more, even if the next pull has opened it again meanwhile.
   */
  isGivenUp(
    { file, ingest, quietMillis, writerOf }: DownloadOptions,
    { modified, written }: Extract<IngestState, { readonly _tag: "InProgress" }>,
    now: number
  ): boolean {
    if (written !== this.#written || modified !== this.#modified) this.#stillSince = now
    this.#written = written
    this.#modified = modified
    const writer = writerOf(file.handle.fd)
    if (writer === "unknown") return now - this.#stillSince >= stillMillis(ingest.size)
    if (writer === "none") this.#closedAt ??= now
    // Another pull has resumed it.
    else if (written < ingest.size) this.#closedAt = undefined
    return this.#closedAt !== undefined && now - this.#closedAt >= quietMillis
  }
}

/** Watches a download until its fate is known. */
export const find = Effect.fnUntraced(function*(
  options: DownloadOptions
): Effect.fn.Return<Fate, StoreUnavailable> {
  const { file, hash, ingest: { size }, isBusy, pause } = options
  const stillness = new Stillness()
  const isRight = yield* Effect.cached(hash.matches)
  const hashed = Effect.map(isRight, (right): Fate => right ? "right" : "wrong")
  let movedSince: number | undefined
  let phase: Phase = "growing"
  // Bytes that a killed pull has left may be wrong, and its lease keeps them: each next pull would try to commit them. They are
  // hashed while the rest comes, so that the download can be discarded before the first of those pulls has failed.
  let isResumed = options.isResumed
  while (true) {
    yield* pause(phase)
    const state = yield* file.state
    const now = yield* MonotonicTime.millis
    switch (state._tag) {
      case "Committed":
        return "committed"
      case "Deleted":
        return state.written === size ? yield* hashed : "unknown"
      case "Moved":
        movedSince ??= now
        if (now - movedSince >= movedMillis) return "unknown"
        continue
      case "InProgress": {
        phase = state.written === size ? "complete" : "growing"
        if (isResumed && phase === "growing") yield* hash.advance
        if (isResumed && phase === "complete" && !(yield* isRight)) return "wrong"
        if (phase === "growing" && isBusy()) continue
        if (!stillness.isGivenUp(options, state, now)) continue
        if (phase === "complete") return yield* hashed
        phase = "resting"
        isResumed = true
      }
    }
  }
})
