/**
 * Follows the file of a download by its inode: containerd renames it to its blob when it commits, and unlinks it when
 * it gives up. The names do not show which of the two has happened, because several clients may download the same
 * content.
 */
import { Effect, type Scope } from "effect"
import { type BigIntStats, constants } from "node:fs"
import { type FileHandle, lstat, open } from "node:fs/promises"
import { ContentNotFound, type Ingest, IngestState, type OpenIngest, type StoreUnavailable } from "../ContentStore.ts"
import { openFlags } from "./BoundedFile.ts"
import { isMissing, tryFile, unavailable } from "./FileFailure.ts"

const chunkSize = 256 * 1024

const statOf = (path: string): Promise<BigIntStats | undefined> =>
  lstat(path, { bigint: true }).catch((cause: unknown) => {
    if (isMissing(cause)) return undefined
    throw cause
  })

const isSame = (one: BigIntStats, other: BigIntStats | undefined) => one.ino === other?.ino && one.dev === other.dev

const look = async (handle: FileHandle, path: string, blobPath: string): Promise<IngestState> => {
  const own = await handle.stat({ bigint: true })
  const written = Number(own.size)
  if (own.nlink === 0n) return IngestState.Deleted({ written })
  if (isSame(own, await statOf(blobPath))) return IngestState.Committed()
  if (isSame(own, await statOf(path))) {
    return IngestState.InProgress({ written, modified: Number(own.mtimeNs / 1_000_000n) })
  }
  return IngestState.Moved()
}

/** Opens the file of `ingest`, whose blob will be at `blobPath`. */
export const openIngest = Effect.fnUntraced(function*(
  { digest, path }: Ingest,
  blobPath: string
): Effect.fn.Return<OpenIngest, ContentNotFound | StoreUnavailable, Scope.Scope> {
  const handle = yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: () => open(path, openFlags | constants.O_NOFOLLOW),
      catch: (cause) =>
        isMissing(cause)
          ? new ContentNotFound({ content: `a download of ${digest}` })
          : unavailable("open a download", path)(cause)
    }),
    (handle) => Effect.promise(() => handle.close())
  )
  return {
    handle,
    state: tryFile("look after a download", path, () => look(handle, path, blobPath)),
    chunks: (start) => handle.createReadStream({ start, autoClose: false, highWaterMark: chunkSize })
  }
})
