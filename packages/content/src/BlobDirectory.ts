/**
 * Reads a directory with `blobs/sha256/<hex>` for complete blobs and `ingest/<any>/{ref,total,data}` for downloads in
 * progress. containerd's content root and an OCI image layout both have this form.
 *
 * A file under `blobs/` is complete and verified: containerd checks the digest before it renames a file to that place,
 * and other writers must do the same. We read only regular files, and only sha256: clients of registries store nothing
 * else.
 */
import * as Digest from "@spegel-ts/oci/Digest"
import { ManifestReader, type ManifestShape } from "@spegel-ts/oci/ManifestShape"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { Cache, Duration, Effect, Exit, Option, Stream } from "effect"
import { constants, type Dir } from "node:fs"
import { type FileHandle, open, opendir, readdir, stat } from "node:fs/promises"
import { join } from "node:path"
import { BlobSource, type ContentChange, ContentNotFound, type ContentStore, StoreUnavailable } from "./ContentStore.ts"
import * as BlobWatch from "./internal/BlobWatch.ts"
import { openFlags, readUpTo } from "./internal/BoundedFile.ts"
import { codeOf, isMissing, tryFile, unavailable } from "./internal/FileFailure.ts"
import * as IngestDirectory from "./internal/IngestDirectory.ts"
import * as IngestFile from "./internal/IngestFile.ts"

/** The part of a `ContentStore` that needs no names. */
export interface BlobDirectory
  extends Pick<typeof ContentStore.Service, "size" | "open" | "digests" | "inProgress" | "openIngest">
{
  /** The facts about a manifest's type that are in the bytes of a complete blob; none if they are not a manifest. */
  readonly manifestShape: (
    digest: Digest.Digest
  ) => Effect.Effect<Option.Option<ManifestShape>, ContentNotFound | StoreUnavailable>
  /** All bytes of a complete blob; none if it is larger than `limit` bytes. */
  readonly readSmall: (
    digest: Digest.Digest,
    limit: number
  ) => Effect.Effect<Option.Option<Uint8Array>, ContentNotFound | StoreUnavailable>
  /**
   * Blobs that are added or removed. Begins with `Resync` once it listens, and repeats it whenever events were lost.
   * The directory may vanish and come back. Fails if it cannot be watched. Each subscriber has its own watchers.
   */
  readonly changes: Stream.Stream<ContentChange, StoreUnavailable>
}

/** The directory to read. */
export interface BlobDirectoryOptions {
  /** The directory that has `blobs` and `ingest`. */
  readonly root: string
  /** A file in `root`. While someone listens to `changes`, `changed` runs whenever the file may have changed. */
  readonly file?: { readonly name: string; readonly changed: Effect.Effect<void> }
}

const maxShapes = 1024
const opening = "open the content store"

/**
 * Whether the failure means that there is no blob: no file, a link (which could lead out of the store), or a socket.
 */
const isNoBlob = (cause: unknown) => isMissing(cause) || codeOf(cause) === "ELOOP" || codeOf(cause) === "ENXIO"

/** How many bytes of a manifest we look at in one turn of the event loop. */
const pieceSize = 64 * 1024

const shapeOf = async (handle: FileHandle, size: number): Promise<Option.Option<ManifestShape>> => {
  if (size > MediaType.maxManifestSize) return Option.none()
  const reader = new ManifestReader()
  const piece = Buffer.allocUnsafe(Math.min(size, pieceSize))
  for (let at = 0; at < size && !reader.refused;) {
    const { bytesRead } = await handle.read(piece, 0, piece.length, at)
    if (bytesRead === 0) break
    reader.push(piece.subarray(0, bytesRead))
    at += bytesRead
  }
  return reader.end()
}

const listingBlobs = "list blobs"
const entriesAtOnce = 1000

const nextDigests = async (directory: Dir) => {
  const found: Array<Digest.Digest> = []
  for (let entries = 0; entries < entriesAtOnce; entries++) {
    const entry = await directory.read()
    if (entry === null) return { found, isEnd: true }
    if (entry.isFile()) found.push(...Option.toArray(Digest.fromString(`sha256:${entry.name}`)))
  }
  return { found, isEnd: false }
}

/** Fails with `StoreUnavailable` unless there is a directory at `root` that can be read. */
export const check = Effect.fnUntraced(function*(root: string): Effect.fn.Return<void, StoreUnavailable> {
  const stats = yield* tryFile(opening, root, () => stat(root))
  if (!stats.isDirectory()) {
    return yield* new StoreUnavailable({ operation: opening, hint: `${root} is not a directory` })
  }
  yield* tryFile(opening, root, () => readdir(root))
})

/** Reads the directory at `root`, which may not exist yet. Fails with `StoreUnavailable` if it cannot be read. */
export const make = Effect.fn("BlobDirectory.make")(function*(options: BlobDirectoryOptions) {
  const { root } = options
  const blobs = join(root, "blobs", "sha256")
  yield* check(root).pipe(Effect.catchIf(({ cause }) => codeOf(cause) === "ENOENT", () => Effect.void))

  const openFile = Effect.fnUntraced(function*(digest: Digest.Digest) {
    if (Digest.algorithm(digest) !== "sha256") return yield* new ContentNotFound({ content: digest })
    const path = join(blobs, Digest.hex(digest))
    const handle = yield* Effect.acquireRelease(
      Effect.tryPromise({
        try: () => open(path, openFlags | constants.O_NOFOLLOW),
        catch: (cause) =>
          isNoBlob(cause) ? new ContentNotFound({ content: digest }) : unavailable("open a blob", path)(cause)
      }),
      (handle) => Effect.promise(() => handle.close())
    )
    const stats = yield* tryFile("open a blob", path, () => handle.stat())
    if (!stats.isFile()) return yield* new ContentNotFound({ content: digest })
    return { handle, path, size: stats.size }
  })

  const read = <A>(digest: Digest.Digest, use: (handle: FileHandle, size: number) => Promise<A>) =>
    openFile(digest).pipe(
      Effect.flatMap(({ handle, path, size }) => tryFile("read a blob", path, () => use(handle, size))),
      Effect.scoped
    )

  // The content of a digest never changes. Whether it is still held is asked each time.
  const shapes = yield* Cache.makeWith(
    (digest: Digest.Digest) => read(digest, shapeOf),
    {
      capacity: maxShapes,
      timeToLive: (exit) => Exit.isSuccess(exit) ? Duration.infinity : Duration.zero
    }
  )

  const listing = Effect.acquireRelease(
    tryFile(listingBlobs, blobs, () =>
      opendir(blobs, { bufferSize: entriesAtOnce }).catch((cause: unknown) => {
        // A new node has no blobs yet.
        if (isMissing(cause)) return undefined
        throw cause
      })),
    (directory) => Effect.promise(async () => directory?.close())
  )
  /** Read piece by piece: all names at once would take a large part of this process's memory. */
  const digests = Stream.unwrap(Effect.map(listing, (directory) =>
    directory === undefined
      ? Stream.empty
      : Stream.paginate(directory, (directory) =>
        Effect.map(
          tryFile(listingBlobs, blobs, () => nextDigests(directory)),
          ({ found, isEnd }) => [found, isEnd ? Option.none() : Option.some(directory)] as const
        ))))

  return {
    size: (digest) => Effect.scoped(Effect.map(openFile(digest), ({ size }) => size)),
    manifestShape: (digest) => Cache.get(shapes, digest),
    readSmall: (digest, limit) =>
      read(
        digest,
        async (handle, size) =>
          size > limit ? Option.none<Uint8Array>() : Option.some<Uint8Array>(await readUpTo(handle, size))
      ),
    open: (digest) => Effect.map(openFile(digest), ({ handle, size }) => BlobSource.File({ handle, size })),
    digests,
    inProgress: Stream.fromIterableEffect(IngestDirectory.list(join(root, "ingest"))),
    openIngest: (ingest) => IngestFile.openIngest(ingest, join(blobs, Digest.hex(ingest.digest))),
    changes: BlobWatch.changes(options)
  } satisfies BlobDirectory
})
