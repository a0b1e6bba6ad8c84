/**
 * Changes of files that are whole or not there, whenever the process or the machine stops. What a killed process left
 * unfinished has a name of ours, and `sweep` removes it.
 */
import { randomUUID } from "node:crypto"
import { constants, type Stats } from "node:fs"
import { link, lstat, mkdir, open, readdir, realpath, rename, rm, stat } from "node:fs/promises"
import { dirname, join } from "node:path"

const unfinished = /^\.spegel-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** A name in a directory for what the next `sweep` of it may remove. */
const unfinishedIn = (directory: string) => join(directory, `.spegel-${randomUUID()}`)

export const hasCode = (cause: unknown, ...codes: ReadonlyArray<string>): boolean =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" && codes.includes(cause.code)

/** What `run` gives, or undefined where the file is not there, or behind links that loop. */
export const ifThere = async <A>(run: Promise<A>): Promise<A | undefined> => {
  try {
    return await run
  } catch (cause) {
    if (hasCode(cause, "ENOENT", "ENOTDIR", "ELOOP")) return undefined
    throw cause
  }
}

/** Whether there is anything of that name, be it a link to nothing. */
export const exists = async (path: string): Promise<boolean> => await ifThere(lstat(path)) !== undefined

export const isLink = async (path: string): Promise<boolean> => (await ifThere(lstat(path)))?.isSymbolicLink() ?? false

/** Whether there is something, behind links too. */
export const isThere = async (path: string): Promise<boolean> => await ifThere(stat(path)) !== undefined

/** Whether it is a directory itself, not a link to one. */
export const isDirectory = async (path: string): Promise<boolean> =>
  (await ifThere(lstat(path)))?.isDirectory() ?? false

export interface File {
  readonly bytes: Buffer
  readonly stats: Stats
}

/** There is a directory or a device where a file is expected. */
export class NoFile extends Error {
  override readonly message = "is no file: remove it"
}

/** The file, or undefined where there is none. What is read and told of it is one version of it. */
export const read = async (path: string, maxSize = Infinity): Promise<File | undefined> => {
  // A named pipe would be waited for.
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

/** The file; undefined also where there is a directory or a device of its name. */
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

/** Entries of a directory but for what is unfinished; none where it is not there. */
export const list = async (path: string): Promise<ReadonlyArray<string>> =>
  (await namesIn(path)).filter((name) => !unfinished.test(name)).toSorted()

/** Directories in a directory, and links to directories; but for those that may not be looked at. */
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

/** Makes a file in a directory that nobody else knows yet. */
export const writeNew = async (path: string, bytes: Uint8Array, mode: number, owner?: Stats) => {
  const handle = await open(path, "wx", 0o600)
  try {
    await handle.writeFile(bytes)
    const { gid, uid } = await handle.stat()
    if (owner !== undefined && (owner.uid !== uid || owner.gid !== gid)) await handle.chown(owner.uid, owner.gid)
    // After the change of owner, and whatever the umask.
    await handle.chmod(mode)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/**
 * Writes `path`, in place of what is there, with permissions `mode` and the owner of `previous`. A symbolic link stays,
 * and what it names is written. Without `previous` there must be nothing.
 */
export const write = async (path: string, bytes: Uint8Array, mode: number, previous?: Stats): Promise<void> => {
  const target = previous === undefined ? path : await realpath(path)
  const temporary = unfinishedIn(dirname(target))
  try {
    await writeNew(temporary, bytes, mode, previous)
    // A link, other than a rename, fails where somebody has made the file in the meantime.
    await (previous === undefined ? link(temporary, target) : rename(temporary, target))
  } finally {
    await rm(temporary, { force: true })
  }
  await sync(dirname(target))
}

/** Makes the directory `path`, together with what `fill` puts into the directory that it is given. */
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

/** Takes a file, or a directory with all in it, away at once: into `directory`, where it is unfinished business. */
export const take = (path: string, directory: string): Promise<void> => rename(path, unfinishedIn(directory))

/** Removes a file, or a directory with all in it, at once. */
export const remove = async (path: string): Promise<void> => {
  const temporary = unfinishedIn(dirname(path))
  await rename(path, temporary)
  await rm(temporary, { recursive: true, force: true })
  await sync(dirname(path))
}

/**
 * Removes what was left unfinished in a directory. A run at the same time may still be at work on it: it is taken away
 * at once, so that this run fails and starts again. Emptied in its place, it could be renamed to its final name empty.
 */
export const sweep = async (directory: string): Promise<void> => {
  for (const name of await namesIn(directory)) {
    if (unfinished.test(name)) await ifThere(remove(join(directory, name)))
  }
}
