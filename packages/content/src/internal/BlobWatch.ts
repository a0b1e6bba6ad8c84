/** Changes of `blobs/sha256` in a directory, for one subscriber. Any possible loss becomes a `Resync`. */
import * as Digest from "@spegel-ts/oci/Digest"
import { Effect, Latch, Schedule, Stream } from "effect"
import { lstat, readFile } from "node:fs/promises"
import { join } from "node:path"
import { ContentChange, type StoreUnavailable } from "../ContentStore.ts"
import { DirectoryWatch } from "./DirectoryWatch.ts"
import { isMissing } from "./FileFailure.ts"

export interface BlobWatchOptions {
  readonly root: string
  /** A file in `root` itself; `changed` runs after each change to it and after each loss of events. */
  readonly file?: { readonly name: string; readonly changed: Effect.Effect<void> } | undefined
}

const encodedSha256 = /^[0-9a-f]{64}$/

/** Half of the kernel's queue, because other watchers share it. */
const eventLimit = readFile("/proc/sys/fs/inotify/max_queued_events", "utf8").then(Number, () => Number.NaN).then(
  (limit) => (limit > 0 ? limit : 16_384) / 2
)

/** Pause after a look that found names, so that more collect: a look costs as much as several names. */
const lookRest = "100 millis"

/** How often to check whether a path leads to another directory, or to one at all: mounts cause no event. */
const lookInterval = "1 second"

/** Whether the blob of a name is there now. */
const look = (root: string, name: string) =>
  Effect.promise(() =>
    lstat(join(root, "blobs", "sha256", name)).then(
      (stats) => stats.isFile(),
      (cause) => isMissing(cause) ? false : undefined
    )
  ).pipe(Effect.map((held) => {
    const digest = Digest.Digest.make(`sha256:${name}`)
    if (held === undefined) return ContentChange.Resync()
    return held ? ContentChange.BlobAdded({ digest }) : ContentChange.BlobRemoved({ digest })
  }))

/** Begins with `Resync`. Waits for a missing directory, and fails if one cannot be watched. */
export const changes = ({ file, root }: BlobWatchOptions): Stream.Stream<ContentChange, StoreUnavailable> =>
  Stream.unwrap(Effect.gen(function*() {
    const awake = yield* Latch.make(true)
    const watch = new DirectoryWatch({
      root,
      below: ["blobs", "sha256"],
      file: file?.name,
      isWanted: (name) => encodedSha256.test(name),
      eventLimit: yield* Effect.promise(() => eventLimit),
      wake: () => awake.openUnsafe()
    })
    yield* Effect.acquireRelease(Effect.sync(() => watch.open()), () => Effect.sync(() => watch.close()))
    yield* Effect.promise(() => watch.look()).pipe(
      Effect.repeat(Schedule.spaced(lookInterval)),
      Effect.forkScoped
    )

    let hasLooked = false
    const take = Effect.gen(function*(): Effect.fn.Return<ReadonlyArray<ContentChange>, StoreUnavailable> {
      yield* awake.await
      if (hasLooked) yield* Effect.sleep(lookRest)
      awake.closeUnsafe()
      if (watch.failure !== undefined) return yield* watch.failure
      const { isFileChanged, isLost, names } = watch.take()
      hasLooked = names.length > 0
      if (file !== undefined && (isFileChanged || isLost)) yield* file.changed
      return isLost ? [ContentChange.Resync()] : yield* Effect.forEach(names, (name) => look(root, name), {
        concurrency: 16
      })
    })
    return Stream.flattenIterable(Stream.fromEffectRepeat(take))
  }))
