/** Reads files that others write. Never reads more than the limit, and never waits for the writer of a pipe. */
import { constants } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"

/** Without O_NONBLOCK, opening a pipe would block a thread of the pool until someone writes to it. */
export const openFlags = constants.O_RDONLY | constants.O_NONBLOCK

/** At most `limit` bytes from the start of the file. */
export const readUpTo = async (handle: FileHandle, limit: number): Promise<Buffer> => {
  const buffer = Buffer.alloc(limit)
  let length = 0
  while (length < limit) {
    const { bytesRead } = await handle.read(buffer, length, limit - length, length)
    if (bytesRead === 0) break
    length += bytesRead
  }
  return buffer.subarray(0, length)
}

/** The regular file at `path`; undefined if it is larger than `limit` bytes or not a regular file. */
export const readSmall = async (path: string, limit: number): Promise<Buffer | undefined> => {
  const handle = await open(path, openFlags)
  try {
    const stats = await handle.stat()
    if (!stats.isFile() || stats.size > limit) return undefined
    // One byte more than its size, to notice a file that grows meanwhile.
    const bytes = await readUpTo(handle, Math.min(stats.size, limit) + 1)
    return bytes.length > limit ? undefined : bytes
  } finally {
    await handle.close()
  }
}
