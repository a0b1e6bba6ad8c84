/**
 * Watches `blobs/sha256` of a directory by inotify, for one subscriber. Every level down to it is watched, so that
 * directories which come later or are replaced are followed; whatever may have been lost becomes a `Resync`. No event
 * tells of what happens above `root`, nor of a mount: that is looked for.
 */
import * as Digest from "@spegel-ts/oci/Digest"
import { Effect, Latch, Schedule, Stream } from "effect"
import { type FSWatcher, type Stats, statSync, watch } from "node:fs"
import { lstat, readFile, stat } from "node:fs/promises"
import { basename, join } from "node:path"
import { ContentChange, StoreUnavailable } from "../ContentStore.ts"
import { codeOf, isMissing, unavailable } from "./FileFailure.ts"

export interface BlobWatchOptions {
  readonly root: string
  /** A file in `root` itself; `changed` runs after each change to it and after each loss of events. */
  readonly file?: { readonly name: string; readonly changed: Effect.Effect<void> } | undefined
}

const operation = "watch the content store"
const encodedSha256 = /^[0-9a-f]{64}$/

/** Distinct names that may wait for a subscriber; beyond it the subscriber is told to list again. */
const maxPendingNames = 10_000

/**
 * The kernel drops events once this many wait, and libuv hides that it did (it discards `IN_Q_OVERFLOW`). All of them
 * are then delivered in one turn of the event loop, which is how it is noticed here; half, as others share the queue.
 */
const maxEventsOfTurn = readFile("/proc/sys/fs/inotify/max_queued_events", "utf8").then(Number, () => Number.NaN).then(
  (limit) => (limit > 0 ? limit : 16_384) / 2
)

const watchFailed = (path: string, cause: unknown) =>
  codeOf(cause) === "ENOSPC"
    ? new StoreUnavailable({
      operation,
      hint: `${path} cannot be watched: raise the limit fs.inotify.max_user_watches of this node`,
      cause
    })
    : unavailable(operation, path)(cause)

/** Pause before names are looked at, where the last look found some: a look costs as much as several names. */
const lookRest = "100 millis"

/** How often to look whether a path leads to another directory, or to one at last. */
const lookInterval = "1 second"

/** Differs whenever a path leads to another directory. */
const placeOf = ({ dev, ino }: Stats): string => `${dev} ${ino}`

const placeNow = (path: string): string => {
  try {
    return placeOf(statSync(path))
  } catch (cause) {
    return codeOf(cause)
  }
}

/** Differences, with `Resync` first; fails where the directory cannot be watched. One that is not there is watched for. */
export const changes = ({ file, root }: BlobWatchOptions): Stream.Stream<ContentChange, StoreUnavailable> =>
  Stream.unwrap(Effect.gen(function*() {
    const levels = [root, join(root, "blobs"), join(root, "blobs", "sha256")]
    const nextOf = ["blobs", "sha256"]
    const eventLimit = yield* Effect.promise(() => maxEventsOfTurn)
    const awake = yield* Latch.make(true)
    const watchers: Array<FSWatcher | undefined> = [undefined, undefined, undefined]
    const watchedPlaces = ["", "", ""]
    const pending = new Set<string>()
    const state: { lost: boolean; fileChanged: boolean; eventsOfTurn: number; failure: StoreUnavailable | undefined } =
      { lost: true, fileChanged: false, eventsOfTurn: 0, failure: undefined }

    const lose = () => {
      state.lost = true
      pending.clear()
      awake.openUnsafe()
    }
    const fail = (failure: StoreUnavailable) => {
      state.failure ??= failure
      awake.openUnsafe()
    }
    const close = (level: number) => {
      watchers[level]?.close()
      watchers[level] = undefined
    }
    const countEvent = () => {
      if (state.eventsOfTurn === 0) setImmediate(() => (state.eventsOfTurn = 0))
      if (++state.eventsOfTurn < eventLimit) return
      state.eventsOfTurn = 1
      lose()
    }
    const onEvent = (level: number) => (event: string, name: string | null) => {
      countEvent()
      if (name === null) return lose()
      if (level === 0 && name === file?.name) {
        state.fileChanged = true
        awake.openUnsafe()
      }
      // Times and modes: containerd sets them on each blob that it has committed.
      if (event === "change") return
      if (name === nextOf[level]) return follow(level + 1)
      if (level === 0 && name === basename(root)) return follow(0)
      if (level < 2 || state.lost || !encodedSha256.test(name)) return
      if (pending.size >= maxPendingNames) return lose()
      pending.add(name)
      awake.openUnsafe()
    }
    /** Watches `from` and what is below it anew. A directory that appears meanwhile is an event of the one above. */
    const follow = (from: number): void => {
      for (let level = from; level < levels.length; level++) {
        const path = levels[level] ?? root
        const previous = watchers[level]
        // Before it is watched: a directory that takes its place meanwhile is noticed.
        watchedPlaces[level] = placeNow(path)
        watchers[level] = undefined
        try {
          const watcher = watch(path, { persistent: false }, onEvent(level))
          watcher.on("error", (cause) => fail(watchFailed(path, cause)))
          watchers[level] = watcher
        } catch (cause) {
          if (!isMissing(cause)) fail(watchFailed(path, cause))
          for (let below = level + 1; below < levels.length; below++) {
            close(below)
            watchedPlaces[below] = placeNow(levels[below] ?? root)
          }
          break
        } finally {
          previous?.close()
        }
      }
      lose()
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => follow(0)),
      () => Effect.sync(() => levels.forEach((_, level) => close(level)))
    )

    yield* Effect.promise(() => Promise.all(levels.map((path) => stat(path).then(placeOf, codeOf)))).pipe(
      Effect.tap((places) =>
        Effect.sync(() => {
          const moved = places.findIndex((place, level) => place !== watchedPlaces[level])
          if (moved >= 0) follow(moved)
        })
      ),
      Effect.repeat(Schedule.spaced(lookInterval)),
      Effect.forkScoped
    )

    const look = (name: string) =>
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

    let hasLooked = false
    const take = Effect.gen(function*(): Effect.fn.Return<ReadonlyArray<ContentChange>, StoreUnavailable> {
      yield* awake.await
      if (hasLooked) yield* Effect.sleep(lookRest)
      awake.closeUnsafe()
      if (state.failure !== undefined) return yield* state.failure
      const { fileChanged, lost } = state
      const names = [...pending]
      state.lost = state.fileChanged = false
      hasLooked = names.length > 0
      pending.clear()
      if (file !== undefined && (fileChanged || lost)) yield* file.changed
      return lost ? [ContentChange.Resync()] : yield* Effect.forEach(names, look, { concurrency: 16 })
    })
    return Stream.flattenIterable(Stream.fromEffectRepeat(take))
  }))
