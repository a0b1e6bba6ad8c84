/**
 * Watches a directory and its parents up to a root by inotify, so that it follows directories that appear later or are
 * replaced. It collects what happened until somebody takes it.
 */
import { type FSWatcher, type Stats, statSync, watch } from "node:fs"
import { stat } from "node:fs/promises"
import { basename, join } from "node:path"
import { StoreUnavailable } from "../ContentStore.ts"
import { codeOf, isMissing, unavailable } from "./FileFailure.ts"

export interface DirectoryWatchOptions {
  readonly root: string
  /** The path from `root` to the directory whose names matter. */
  readonly below: ReadonlyArray<string>
  /** A file in `root` that is watched too. */
  readonly file: string | undefined
  /** Names that matter. */
  readonly isWanted: (name: string) => boolean
  /** If one turn of the event loop brings this many events, the kernel may have dropped some. */
  readonly eventLimit: number
  /** Called when there is something to take. */
  readonly wake: () => void
}

/** The events since the last `take`. */
export interface Happened {
  /** Events were lost, or directories have come or gone: anything may have changed. */
  readonly isLost: boolean
  readonly isFileChanged: boolean
  /** Names that have come or gone. */
  readonly names: ReadonlyArray<string>
}

/** Distinct names that may wait. Beyond that everything counts as lost. */
const maxPendingNames = 10_000

const operation = "watch the content store"

const watchFailed = (path: string, cause: unknown) =>
  codeOf(cause) === "ENOSPC"
    ? new StoreUnavailable({
      operation,
      hint: `${path} cannot be watched: raise the limit fs.inotify.max_user_watches of this node`,
      cause
    })
    : unavailable(operation, path)(cause)

/** Differs whenever a path leads to another directory. */
const placeOf = ({ dev, ino }: Stats): string => `${dev} ${ino}`

const placeNow = (path: string): string => {
  try {
    return placeOf(statSync(path))
  } catch (cause) {
    return codeOf(cause)
  }
}

/** Watches from `open` to `close`. */
export class DirectoryWatch {
  readonly #options: DirectoryWatchOptions
  /** `root` and the directories below it, each with the directory that its path led to when we began to watch it. */
  readonly #levels: ReadonlyArray<{ readonly path: string; watcher: FSWatcher | undefined; place: string }>
  readonly #pending = new Set<string>()
  #isLost = true
  #isFileChanged = false
  #eventsOfTurn = 0
  #failure: StoreUnavailable | undefined

  constructor(options: DirectoryWatchOptions) {
    const { below, root } = options
    this.#options = options
    this.#levels = [root, ...below.map((_, level) => join(root, ...below.slice(0, level + 1)))].map((path) => ({
      path,
      watcher: undefined,
      place: ""
    }))
  }

  open(): void {
    this.#follow(0)
  }

  close(): void {
    for (const level of this.#levels) {
      level.watcher?.close()
      level.watcher = undefined
    }
  }

  /** Why the directory cannot be watched any more. */
  get failure(): StoreUnavailable | undefined {
    return this.#failure
  }

  /** Returns the events since the last call. */
  take(): Happened {
    const happened = { isLost: this.#isLost, isFileChanged: this.#isFileChanged, names: [...this.#pending] }
    this.#isLost = this.#isFileChanged = false
    this.#pending.clear()
    return happened
  }

  /** Follows directories that were replaced without an event: by a mount, or above `root`. */
  async look(): Promise<void> {
    const places = await Promise.all(this.#levels.map(({ path }) => stat(path).then(placeOf, codeOf)))
    const moved = this.#levels.findIndex(({ place }, level) => place !== places[level])
    if (moved >= 0) this.#follow(moved)
  }

  #lose(): void {
    this.#isLost = true
    this.#pending.clear()
    this.#options.wake()
  }

  #fail(failure: StoreUnavailable): void {
    this.#failure ??= failure
    this.#options.wake()
  }

  /**
   * The kernel drops events when its queue is full, and libuv hides that (it discards `IN_Q_OVERFLOW`). A full queue is
   * delivered in one turn of the event loop, which is how we notice.
   */
  #countEvent(): void {
    if (this.#eventsOfTurn === 0) setImmediate(() => (this.#eventsOfTurn = 0))
    if (++this.#eventsOfTurn < this.#options.eventLimit) return
    this.#eventsOfTurn = 1
    this.#lose()
  }

  #onEvent(level: number, event: string, name: string | null): void {
    const { below, file, isWanted, root, wake } = this.#options
    this.#countEvent()
    if (name === null) return this.#lose()
    if (level === 0 && name === file) {
      this.#isFileChanged = true
      wake()
    }
    // A change of time or mode: containerd sets them on each blob that it has committed.
    if (event === "change") return
    if (name === below[level]) return this.#follow(level + 1)
    if (level === 0 && name === basename(root)) return this.#follow(0)
    if (level < below.length || this.#isLost || !isWanted(name)) return
    if (this.#pending.size >= maxPendingNames) return this.#lose()
    this.#pending.add(name)
    wake()
  }

  /** Watches a level and those below it again. If a directory appears meanwhile, the level above reports it. */
  #follow(from: number): void {
    let isThere = true
    for (const [index, level] of this.#levels.entries()) {
      if (index < from) continue
      const previous = level.watcher
      level.watcher = undefined
      // Before we watch it, so that we notice a directory that takes its place meanwhile.
      level.place = placeNow(level.path)
      if (isThere) isThere = this.#watch(index, level)
      previous?.close()
    }
    this.#lose()
  }

  /** Watches one level. Returns false if there is no directory. */
  #watch(index: number, level: { readonly path: string; watcher: FSWatcher | undefined }): boolean {
    const { path } = level
    try {
      level.watcher = watch(path, { persistent: false }, (event, name) => this.#onEvent(index, event, name))
      level.watcher.on("error", (cause) => this.#fail(watchFailed(path, cause)))
      return true
    } catch (cause) {
      if (!isMissing(cause)) this.#fail(watchFailed(path, cause))
      return false
    }
  }
}
