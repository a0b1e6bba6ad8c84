/** Reads and writes small files so that a crash leaves either the whole file or none. */
import { constants } from "node:fs"
import { mkdir, open, rename, rm, stat } from "node:fs/promises"
import { dirname } from "node:path"

/** The code of a system error, such as `ENOENT`. */
export const codeOf = (cause: unknown): unknown =>
  typeof cause === "object" && cause !== null && "code" in cause ? cause.code : undefined

/** The file at `path`; undefined if there is none. Rejects if it is not a regular file, or larger than `limit` bytes. */
export const readSmall = async (path: string, limit: number): Promise<Buffer | undefined> => {
  // Without O_NONBLOCK, opening a pipe would wait for its writer.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
    if (codeOf(cause) === "ENOENT") return undefined
    throw cause
  })
  if (handle === undefined) return undefined
  try {
    const stats = await handle.stat()
    if (!stats.isFile()) throw new Error("is not a regular file")
    if (stats.size > limit) throw new Error(`is larger than ${limit} bytes`)
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(limit), 0, limit, 0)
    return buffer.subarray(0, bytesRead)
  } finally {
    await handle.close()
  }
}

/** Makes a directory and its parents. Node's recursive mkdir never ends if a parent refuses, as `/proc` does. */
export const makeDirectory = async (path: string, mode: number): Promise<void> => {
  try {
    await mkdir(path, { mode })
  } catch (cause) {
    if (codeOf(cause) === "EEXIST" && (await stat(path)).isDirectory()) return
    if (codeOf(cause) !== "ENOENT" || dirname(path) === path) throw cause
    await makeDirectory(dirname(path), mode)
    await mkdir(path, { mode })
  }
}

/** Some file systems cannot sync a directory, and do not need to. */
const syncDirectory = async (path: string): Promise<void> => {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await directory.sync().catch(() => undefined)
  } finally {
    await directory.close()
  }
}

/** Replaces the file at `path`. If it rejects, the old file is unchanged and no other file is left behind. */
export const writeDurably = async (path: string, text: string, mode: number): Promise<void> => {
  const temporary = `${path}.new`
  try {
    // A file that a crash left behind may have another mode or owner.
    await rm(temporary, { force: true })
    const handle = await open(temporary, "wx", mode)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => undefined)
    throw cause
  }
  await syncDirectory(dirname(path))
}
