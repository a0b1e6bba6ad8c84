/**
 * A directory with `blobs/sha256/<hex>` for complete blobs and `ingest/<any>/{ref,total,data}` for downloads under way.
 * containerd's content root and an OCI image layout are both such a directory, and are read by this one mechanism.
 *
 * A file under `blobs/` is complete and verified: containerd renames it there only after its digest was checked.
 */
import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { Cache, Duration, Effect, Exit, Latch, Option, Stream } from "effect"
import { constants, type FSWatcher, watch } from "node:fs"
import { type FileHandle, open, readdir, readFile, stat } from "node:fs/promises"
import { join } from "node:path"
import {
  BlobSource,
  ContentChange,
  ContentNotFound,
  type ContentStore,
  type Ingest,
  StoreUnavailable
} from "./ContentStore.ts"

/** The part of a `ContentStore` that needs no names. */
export interface BlobDirectory
  extends Pick<typeof ContentStore.Service, "describe" | "open" | "digests" | "inProgress">
{
  /** Blobs that came or went; begins with `Resync` once it listens, and repeats it whenever events were lost. */
  readonly changes: Stream.Stream<ContentChange, StoreUnavailable>
}

const encodedSha256 = /^[0-9a-f]{64}$/
/** containerd names an ingest `<kind>-<digest>`, with an image name in between where the descriptor has one. */
const digestOfIngest = /(?:^|[-@])(sha256:[0-9a-f]{64})$/

/** Distinct names that may wait for a subscriber; beyond it the subscriber is told to list again. */
const maxPendingNames = 10_000
/** containerd has as many ingests as downloads under way: a handful. */
const maxIngests = 1000
const maxMediaTypes = 1024

const codeOf = (cause: unknown): string =>
  typeof cause === "object" && cause !== null && "code" in cause ? String(cause.code) : "unknown"

const isMissing = (cause: unknown) => codeOf(cause) === "ENOENT" || codeOf(cause) === "ENOTDIR"

const tryFile = <A>(operation: string, path: string, run: () => Promise<A>): Effect.Effect<A, StoreUnavailable> =>
  Effect.tryPromise({
    try: run,
    catch: (cause) => {
      const code = codeOf(cause)
      const reason = code === "ENOENT"
        ? "does not exist"
        : code === "ENOTDIR"
        ? "is not a directory"
        : code === "EACCES"
        ? "may not be read by this user"
        : `failed with ${code}`
      return new StoreUnavailable({ operation, hint: `${path} ${reason}`, cause })
    }
  })

/** Reads the directory at `root`, which must exist; `blobs/` and `ingest/` may come later, as on a new node. */
export const make = Effect.fn("BlobDirectory.make")(function*(options: { readonly root: string }) {
  const { root } = options
  const blobs = join(root, "blobs", "sha256")
  const rootStat = yield* tryFile("open the content store", root, () => stat(root))
  if (!rootStat.isDirectory()) {
    return yield* new StoreUnavailable({ operation: "open the content store", hint: `${root} is not a directory` })
  }
  yield* tryFile("open the content store", root, () => readdir(root))

  const pathOf = (digest: Digest.Digest): Option.Option<string> =>
    Digest.algorithm(digest) === "sha256" ? Option.some(join(blobs, Digest.hex(digest))) : Option.none()

  const openFile = Effect.fnUntraced(function*(digest: Digest.Digest) {
    const path = yield* Effect.fromOption(pathOf(digest)).pipe(
      Effect.mapError(() => new ContentNotFound({ content: digest }))
    )
    const handle = yield* Effect.acquireRelease(
      Effect.tryPromise({
        // A blob is a regular file: a link could lead out of the store.
        try: () => open(path, constants.O_RDONLY | constants.O_NOFOLLOW),
        catch: (cause) =>
          isMissing(cause) || codeOf(cause) === "ELOOP"
            ? new ContentNotFound({ content: digest })
            : new StoreUnavailable({ operation: "open a blob", hint: `${path} failed with ${codeOf(cause)}`, cause })
      }),
      (handle) => Effect.promise(() => handle.close())
    )
    const { isFile, size } = yield* tryFile("open a blob", path, async () => {
      const stats = await handle.stat()
      return { isFile: stats.isFile(), size: stats.size }
    })
    if (!isFile) return yield* new ContentNotFound({ content: digest })
    return { handle, size }
  })

  const sniff = Effect.fnUntraced(function*(handle: FileHandle, size: number) {
    if (size > MediaType.maxManifestSize) return MediaType.octetStream
    const bytes = yield* tryFile("read a manifest", root, async () => {
      const buffer = Buffer.alloc(size)
      // Most small blobs are layers: one byte tells them from JSON.
      await handle.read(buffer, 0, 1, 0)
      if (buffer[0] === 0x7b) await handle.read(buffer, 0, size, 0)
      return buffer
    })
    return Option.getOrElse(MediaType.ofManifest(bytes), () => MediaType.octetStream)
  })

  // What a digest is never changes; whether it is still held is asked each time.
  const mediaTypes = yield* Cache.makeWith(
    (digest: Digest.Digest) =>
      Effect.scoped(Effect.flatMap(openFile(digest), ({ handle, size }) => sniff(handle, size))),
    {
      capacity: maxMediaTypes,
      timeToLive: (exit) => Exit.isSuccess(exit) ? Duration.infinity : Duration.zero
    }
  )

  const digests = Stream.fromIterableEffect(
    tryFile("list blobs", blobs, () =>
      readdir(blobs).catch((cause: unknown) => {
        // A new node has no blobs yet.
        if (isMissing(cause)) return []
        throw cause
      })).pipe(Effect.map((names) => names.filter((name) => encodedSha256.test(name)).map(digestOfName)))
  )

  const inProgress = Stream.fromIterableEffect(
    Effect.promise(() => readIngests(join(root, "ingest")))
  )

  return {
    describe: Effect.fn("BlobDirectory.describe")(function*(digest) {
      const { size } = yield* openFile(digest)
      return new Descriptor({ digest, size, mediaType: yield* Cache.get(mediaTypes, digest) })
    }, Effect.scoped),
    open: Effect.fn("BlobDirectory.open")((digest) => Effect.map(openFile(digest), (file) => BlobSource.File(file))),
    digests,
    inProgress,
    changes: watchBlobs(root)
  } satisfies BlobDirectory
})

const digestOfName = (name: string): Digest.Digest => Digest.Digest.make(`sha256:${name}`)

/** Ingests vanish at any time, so what cannot be read is none. */
const readIngests = async (directory: string): Promise<ReadonlyArray<Ingest>> => {
  const names = await readdir(directory).catch(() => [])
  const ingests = await Promise.all(
    names.slice(0, maxIngests).map(async (name): Promise<ReadonlyArray<Ingest>> => {
      const path = join(directory, name, "data")
      try {
        const [ref, total, data] = await Promise.all([
          readFile(join(directory, name, "ref"), "utf8"),
          readFile(join(directory, name, "total"), "utf8"),
          stat(path)
        ])
        const digest = digestOfIngest.exec(ref.trim())?.[1]
        const size = Number(total)
        if (digest === undefined || !Number.isSafeInteger(size) || size <= 0) return []
        return [{ digest: Digest.Digest.make(digest), path, size, written: data.size }]
      } catch {
        return []
      }
    })
  )
  return ingests.flat()
}

/**
 * Watches the deepest directory of `blobs/sha256` that exists, moving down as they appear. Names that changed are
 * collected in a set and looked at when the subscriber comes for them: a burst costs one entry a name.
 */
const watchBlobs = (root: string): Stream.Stream<ContentChange> =>
  Stream.unwrap(Effect.gen(function*() {
    const changed = yield* Latch.make(true)
    const levels = [root, join(root, "blobs"), join(root, "blobs", "sha256")]
    const state = { pending: new Set<string>(), lost: true, watcher: undefined as FSWatcher | undefined, closed: false }

    const lose = () => {
      state.lost = true
      state.pending.clear()
      changed.openUnsafe()
    }
    const onEvent = (level: number) => (_event: string, name: string | null) => {
      if (name === null) return lose()
      if (level < 2) {
        // The next directory has come, or this one was replaced.
        if (name === (level === 0 ? "blobs" : "sha256")) follow()
        return
      }
      if (!encodedSha256.test(name)) {
        // The event of the watched directory itself: it was removed or moved away.
        if (name === "sha256") follow()
        return
      }
      if (state.pending.size >= maxPendingNames) return lose()
      if (!state.lost) state.pending.add(name)
      changed.openUnsafe()
    }
    const watchLevel = (level: number): boolean => {
      try {
        const watcher = watch(levels[level] ?? root, { persistent: false }, onEvent(level))
        watcher.on("error", follow)
        state.watcher?.close()
        state.watcher = watcher
        return true
      } catch {
        return false
      }
    }
    // A directory that appears while its parent is being watched gives an event: no gap between trying and watching.
    function follow() {
      if (state.closed) return
      for (let level = 0; level < levels.length; level++) {
        if (!watchLevel(level)) break
      }
      lose()
    }

    yield* Effect.acquireRelease(
      Effect.sync(follow),
      () =>
        Effect.sync(() => {
          state.closed = true
          state.watcher?.close()
        })
    )

    const take = Effect.gen(function*(): Effect.fn.Return<ReadonlyArray<ContentChange>> {
      yield* changed.await
      changed.closeUnsafe()
      if (state.lost) {
        state.lost = false
        return [ContentChange.Resync()]
      }
      const names = [...state.pending]
      state.pending.clear()
      return yield* Effect.forEach(names, (name) =>
        Effect.promise(() =>
          stat(join(root, "blobs", "sha256", name)).then((stats) => stats.isFile(), () => false)
        ).pipe(
          Effect.map((held) => {
            const digest = digestOfName(name)
            return held ? ContentChange.BlobAdded({ digest }) : ContentChange.BlobRemoved({ digest })
          })
        ), { concurrency: 16 })
    })
    return Stream.flattenIterable(Stream.fromEffectRepeat(take))
  }))
