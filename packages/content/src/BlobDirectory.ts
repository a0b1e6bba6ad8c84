/**
 * A directory with `blobs/sha256/<hex>` for complete blobs and `ingest/<any>/{ref,total,data}` for downloads under way.
 * containerd's content root and an OCI image layout are both such a directory, and are read by this one mechanism.
 *
 * A file under `blobs/` is complete and verified: containerd renames it there only after its digest was checked, and
 * other writers must do the same. Only regular files count, and only sha256: no client of a registry stores others.
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
  /** What the bytes of a complete blob show of a manifest's type. None where they are no manifest. */
  readonly manifestShape: (
    digest: Digest.Digest
  ) => Effect.Effect<Option.Option<ManifestShape>, ContentNotFound | StoreUnavailable>
  /** All bytes of a complete blob; none where it is larger than `limit` bytes. */
  readonly readSmall: (
    digest: Digest.Digest,
    limit: number
  ) => Effect.Effect<Option.Option<Uint8Array>, ContentNotFound | StoreUnavailable>
  /**
   * Blobs that came or went; begins with `Resync` once it listens, and repeats it whenever events were lost. Goes on
   * when the directory vanishes and when it comes (back); fails when it cannot be watched. Each subscriber has its own
   * watchers, closed with it.
   */
  readonly changes: Stream.Stream<ContentChange, StoreUnavailable>
}

/** Which directory to read. */
export interface BlobDirectoryOptions {
  /** The directory that has `blobs` and `ingest`. */
  readonly root: string
  /** A file in `root`; while someone listens to `changes`, `changed` runs whenever it may be different. */
  readonly file?: { readonly name: string; readonly changed: Effect.Effect<void> }
}

const encodedSha256 = /^[0-9a-f]{64}$/
const maxShapes = 1024
const opening = "open the content store"

/** Nothing there that could be a blob: no file, a link (which could lead out of the store), or a socket. */
const isNoBlob = (cause: unknown) => isMissing(cause) || codeOf(cause) === "ELOOP" || codeOf(cause) === "ENXIO"

/** How much of a manifest is looked at in one turn of the event loop, in bytes. */
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
    if (entry.isFile() && encodedSha256.test(entry.name)) found.push(Digest.Digest.make(`sha256:${entry.name}`))
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

/** Reads the directory at `root`. It may come later, as on a new node. One that cannot be read is a `StoreUnavailable`. */
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

  // What a digest names never changes; whether it is still held is asked each time.
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
  /** Read piece by piece: all names at once would be a good part of this process's memory. */
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
