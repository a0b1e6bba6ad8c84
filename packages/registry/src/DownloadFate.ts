/**
 * What becomes of a download of containerd, told without hashing what is on its way: containerd hashes every blob itself and
 * renames the file where it is right. Only where it did not is the file hashed here, once.
 *
 * There is no time after which a commit is overdue: containerd's fsync takes as long as the disk does. While it runs the
 * file is open for writing.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { Ingest, IngestState, OpenIngest, StoreUnavailable } from "@spegel-ts/content/ContentStore"
import type { FileWriter } from "@spegel-ts/transfer/FileLease"
import { Effect } from "effect"

/**
 * `committed`: containerd found it right. `right`, `wrong`: it was given up, and these are its bytes. `unknown`: it was given
 * up before it was complete, or somebody moved it; that says nothing of who sent it.
 */
export type Fate = "committed" | "right" | "wrong" | "unknown"

export interface DownloadOptions {
  readonly ingest: Ingest
  readonly file: OpenIngest
  /** Whether bytes are being relayed to it. */
  readonly isBusy: () => boolean
  /** For how long nobody may have written to it before it is given up, in milliseconds. */
  readonly quietMillis: number
  readonly writerOf: (descriptor: number) => FileWriter
  /** Whether its bytes are those of its digest. */
  readonly isRight: Effect.Effect<boolean, StoreUnavailable>
  /** Waits until it is looked at again; `resting` where nothing is expected to happen soon. */
  readonly pause: (resting: boolean) => Effect.Effect<void>
}

/** A rename takes as long as this at most. */
const movedMillis = 1000

/** How long a file has to stand still where it cannot be told whether it is open: a slow disk syncs 10 MiB a second. */
const stillMillis = (size: number) => Math.max(3000, (size / (10 * 1024 * 1024)) * 1000)

/** For how long nobody has written to a file. */
class Stillness {
  #seen = ""
  #since = 0

  /** Whether it has been for long enough. */
  isOver(
    { file, ingest, quietMillis, writerOf }: DownloadOptions,
    { modified, written }: Extract<IngestState, { readonly _tag: "InProgress" }>,
    now: number
  ): boolean {
    const writer = writerOf(file.descriptor)
    const sees = `${writer} ${written} ${modified}`
    if (sees !== this.#seen || writer === "open") {
      this.#seen = sees
      this.#since = now
      return false
    }
    return now - this.#since >= (writer === "none" ? quietMillis : stillMillis(ingest.size))
  }
}

/** Looks after a download until its fate is known. */
export const find = Effect.fnUntraced(function*(
  options: DownloadOptions
): Effect.fn.Return<Fate, StoreUnavailable> {
  const { file, ingest: { size }, isBusy, isRight, pause } = options
  const hashed = Effect.map(isRight, (right): Fate => right ? "right" : "wrong")
  const stillness = new Stillness()
  let movedSince: number | undefined
  let resting = false
  while (true) {
    yield* pause(resting)
    resting = false
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
        const complete = state.written === size
        if (!complete && isBusy()) continue
        if (!stillness.isOver(options, state, now)) continue
        if (complete) return yield* hashed
        // A client was killed: another pull may go on with it.
        resting = true
      }
    }
  }
})
