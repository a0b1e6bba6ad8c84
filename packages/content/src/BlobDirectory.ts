/**
 * A directory with `blobs/sha256/<hex>` for complete blobs and `ingest/<any>/{ref,total,data}` for downloads under way.
 * containerd's content root and an OCI image layout are both such a directory, and are read by this one mechanism.
 *
 * A file under `blobs/` is complete and verified: containerd renames it there only after its digest was checked, and
 * other writers must do the same. Only regular files count, and only sha256: no client of a registry stores others.
 */
import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { Cache, Duration, Effect, Exit, Option, Stream } from "effect"
import { constants } from "node:fs"
import { type FileHandle, open, readdir, stat } from "node:fs/promises"
import { join } from "node:path"
import { BlobSource, type ContentChange, ContentNotFound, type ContentStore, StoreUnavailable } from "./ContentStore.ts"
import * as BlobWatch from "./internal/BlobWatch.ts"
import { openFlags, readUpTo } from "./internal/BoundedFile.ts"
import { codeOf, isMissing, tryFile, unavailable } from "./internal/FileFailure.ts"
import * as IngestDirectory from "./internal/IngestDirectory.ts"

/** The part of a `ContentStore` that needs no names. */
export interface BlobDirectory
  extends Pick<typeof ContentStore.Service, "describe" | "open" | "digests" | "inProgress">
{
  /**
   * Blobs that came or went; begins with `Resync` once it listens, and repeats it whenever events were lost. Goes on
   * when the directory vanishes and when it comes (back); fails when it cannot be watched. Each subscriber has its own
   * watchers, closed with it.
   */
  readonly changes: Stream.Stream<ContentChange, StoreUnavailable>
}

export interface BlobDirectoryOptions {
  readonly root: string
  /** A file in `root`; while someone listens to `changes`, `changed` runs whenever it may be different. */
  readonly file?: { readonly name: string; readonly changed: Effect.Effect<void> }
}

const encodedSha256 = /^[0-9a-f]{64}$/
const maxMediaTypes = 1024
const opening = "open the content store"

/** No blob: nothing there, a link (which could lead out of the store), or a socket. */
const isNoBlob = (cause: unknown) => isMissing(cause) || codeOf(cause) === "ELOOP" || codeOf(cause) === "ENXIO"

/** What the bytes are. Most small blobs are layers: one byte tells them from JSON. */
const mediaTypeOf = async (handle: FileHandle, size: number): Promise<string> => {
  if (size > MediaType.maxManifestSize || (await readUpTo(handle, 1))[0] !== 0x7b) return MediaType.octetStream
  return Option.getOrElse(MediaType.ofManifest(await readUpTo(handle, size)), () => MediaType.octetStream)
}

/** Fails unless there is a directory that can be read. */
export const check = Effect.fnUntraced(function*(root: string): Effect.fn.Return<void, StoreUnavailable> {
  const stats = yield* tryFile(opening, root, () => stat(root))
  if (!stats.isDirectory()) {
    return yield* new StoreUnavailable({ operation: opening, hint: `${root} is not a directory` })
  }
  yield* tryFile(opening, root, () => readdir(root))
})

/** Reads the directory at `root`. All of it may come later, as on a new node; what is there and cannot be read is an error. */
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

  // What a digest is never changes; whether it is still held is asked each time.
  const mediaTypes = yield* Cache.makeWith(
    (digest: Digest.Digest) =>
      openFile(digest).pipe(
        Effect.flatMap(({ handle, path, size }) => tryFile("read a blob", path, () => mediaTypeOf(handle, size))),
        Effect.scoped
      ),
    {
      capacity: maxMediaTypes,
      timeToLive: (exit) => Exit.isSuccess(exit) ? Duration.infinity : Duration.zero
    }
  )

  const digests = Stream.fromIterableEffect(
    tryFile("list blobs", blobs, () =>
      readdir(blobs, { withFileTypes: true }).catch((cause: unknown) => {
        // A new node has no blobs yet.
        if (isMissing(cause)) return []
        throw cause
      })).pipe(
        Effect.map((entries) =>
          entries.flatMap((entry) =>
            entry.isFile() && encodedSha256.test(entry.name) ? [Digest.Digest.make(`sha256:${entry.name}`)] : []
          )
        )
      )
  )

  return {
    describe: Effect.fnUntraced(function*(digest) {
      const { size } = yield* openFile(digest)
      return new Descriptor({ digest, size, mediaType: yield* Cache.get(mediaTypes, digest) })
    }, Effect.scoped),
    open: Effect.fnUntraced(function*(digest) {
      const { handle, size } = yield* openFile(digest)
      return BlobSource.File({ handle, size, mediaType: yield* Cache.get(mediaTypes, digest) })
    }),
    digests,
    inProgress: Stream.fromIterableEffect(IngestDirectory.list(join(root, "ingest"))),
    changes: BlobWatch.changes(options)
  } satisfies BlobDirectory
})
