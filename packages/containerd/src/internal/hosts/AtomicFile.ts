/**
 * Atomic changes of files and directories: whenever the process or the machine stops, a change is complete or absent.
 * Unfinished work has a name of ours, and `sweep` removes it.
 */
import { randomUUID } from "node:crypto"
import { constants, type Stats } from "node:fs"
import { link, lstat, mkdir, open, readdir, realpath, rename, rm, stat } from "node:fs/promises"
import { dirname, join } from "node:path"

const unfinished = /^\.spegel-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** A new name in `directory` for something that any `sweep` may remove. */
const unfinishedIn = (directory: string) => join(directory, `.spegel-${randomUUID()}`)

export const hasCode = (cause: unknown, ...codes: ReadonlyArray<string>): boolean =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" && codes.includes(cause.code)

/** The result of `run`, or undefined if the file does not exist or its links form a loop. */
export const ifThere = async <A>(run: Promise<A>): Promise<A | undefined> => {
  try {
    return await run
  } catch (cause) {
    if (hasCode(cause, "ENOENT", "ENOTDIR", "ELOOP")) return undefined
    throw cause
  }
}

/** Whether the name exists, even as a broken link. */
export const exists = async (path: string): Promise<boolean> => await ifThere(lstat(path)) !== undefined

export const isLink = async (path: string): Promise<boolean> => (await ifThere(lstat(path)))?.isSymbolicLink() ?? false

/** Whether the name exists and is not a broken link. */
export const isThere = async (path: string): Promise<boolean> => await ifThere(stat(path)) !== undefined

/** Whether it is a directory, and not a link to one. */
export const isDirectory = async (path: string): Promise<boolean> =>
  (await ifThere(lstat(path)))?.isDirectory() ?? false

export interface File {
  readonly bytes: Buffer
  readonly stats: Stats
}

/** The name belongs to a directory, a pipe or a device. */
class NoFile extends Error {
  override readonly message = "is not a file: remove it"
}

/** The file, or undefined if it does not exist. Bytes and stats are of the same version. */
export const read = async (path: string, maxSize = Infinity): Promise<File | undefined> => {
  // Without O_NONBLOCK a named pipe would wait for its writer.
  const handle = await ifThere(open(path, constants.O_RDONLY | constants.O_NONBLOCK))
  if (handle === undefined) return undefined
  try {
    const stats = await handle.stat()
    if (!stats.isFile()) throw new NoFile()
    if (stats.size > maxSize) throw new Error(`is larger than ${maxSize} bytes`)
    return { stats, bytes: await handle.readFile() }
  } finally {
    await handle.close()
  }
}

/** The file, or undefined if there is none, or something that is not a file. */
export const readIfFile = async (path: string): Promise<File | undefined> => {
  try {
    return await read(path)
  } catch (cause) {
    if (cause instanceof NoFile) return undefined
    throw cause
  }
}

/** The permission bits of a file. */
export const permissions = ({ mode }: Stats): number => mode & 0o7777

const namesIn = async (path: string): Promise<ReadonlyArray<string>> => (await ifThere(readdir(path))) ?? []

/** Entries of a directory except unfinished ones; none if it does not exist. */
export const list = async (path: string): Promise<ReadonlyArray<string>> =>
  (await namesIn(path)).filter((name) => !unfinished.test(name)).toSorted()

/** Directories in a directory, and links to directories, except those that we may not look at. */
export const directories = async (path: string): Promise<ReadonlyArray<string>> => {
  const found: Array<string> = []
  for (const name of await list(path)) {
    const stats = await ifThere(stat(join(path, name))).catch(() => undefined)
    if (stats?.isDirectory() === true) found.push(name)
  }
  return found
}

const sync = async (directory: string) => {
  const handle = await open(directory)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Makes a file under a name that nobody else knows yet. */
export const writeNew = async (path: string, bytes: Uint8Array, mode: number, owner?: Stats) => {
  const handle = await open(path, "wx", 0o600)
  try {
    await handle.writeFile(bytes)
    const { gid, uid } = await handle.stat()
    if (owner !== undefined && (owner.uid !== uid || owner.gid !== gid)) await handle.chown(owner.uid, owner.gid)
    // After chown, which may clear bits, and independent of the umask.
    await handle.chmod(mode)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/**
 * Replaces the file at `path`, with permissions `mode` and the owner of `previous`. A symbolic link stays, and its
 * target is replaced. Without `previous` the file must not exist yet.
 */
export const write = async (path: string, bytes: Uint8Array, mode: number, previous?: Stats): Promise<void> => {
  const target = previous === undefined ? path : await realpath(path)
  const temporary = unfinishedIn(dirname(target))
  try {
    await writeNew(temporary, bytes, mode, previous)
    // Unlike rename, link fails if somebody has made the file in the meantime.
    await (previous === undefined ? link(temporary, target) : rename(temporary, target))
  } finally {
    await rm(temporary, { force: true })
  }
  await sync(dirname(target))
}

/** Makes the directory `path` together with its content, which `fill` puts into the directory that it is given. */
export const makeDirectory = async (path: string, fill: (directory: string) => Promise<void>): Promise<void> => {
  const temporary = unfinishedIn(dirname(path))
  try {
    await mkdir(temporary, { mode: 0o755 })
    await fill(temporary)
    await sync(temporary)
    await rename(temporary, path)
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true })
    throw cause
  }
  await sync(dirname(path))
}

/** Moves a file or a directory into `directory`, under a name that `sweep` removes. Fails if `directory` is gone. */
export const take = (path: string, directory: string): Promise<void> => rename(path, unfinishedIn(directory))

/** Removes a file, or a directory with its content. */
export const remove = async (path: string): Promise<void> => {
  const temporary = unfinishedIn(dirname(path))
  await rename(path, temporary)
  await rm(temporary, { recursive: true, force: true })
  await sync(dirname(path))
}

/**
 * Removes unfinished work in a directory. A run at the same time may still be at work on it. Renaming it first makes
 * that run fail and start again; if we emptied it in place, that run could rename an empty directory to its final name.
 */
export const sweep = async (directory: string): Promise<void> => {
  for (const name of await namesIn(directory)) {
    if (unfinished.test(name)) await ifThere(remove(join(directory, name)))
  }
}
