/**
 * Puts the mirror into the `hosts.toml` of one registry, and takes it out. The file itself records what it was before
 * (`HostsBlocks`), so replacing it once does either.
 */
import { Option, Result } from "effect"
import { lstat, readdir } from "node:fs/promises"
import { join } from "node:path"
import * as AtomicFile from "./AtomicFile.ts"
import * as Certificates from "./Certificates.ts"
import * as HostsBlocks from "./HostsBlocks.ts"
import * as HostsToml from "./HostsToml.ts"
import type { RegistryDirectory } from "./RegistryDirectory.ts"

export const fileName = "hosts.toml"

/** Size limit for a file that we change, in bytes. containerd reads larger ones, but nobody writes them. */
const maxSize = 1024 * 1024

export interface Configured {
  readonly isChanged: boolean
  /** URLs of hosts in the file that containerd no longer asks, until `restore`. */
  readonly removedHosts: ReadonlyArray<string>
  /** Why some or all versions of containerd refused the file as it was; empty if all accepted it. */
  readonly refused: ReadonlyArray<string>
}

/** The text of the file before we changed it; none if we did not. */
const restored = ({ bytes }: AtomicFile.File) => HostsBlocks.restore(bytes.toString("latin1"))

interface Before {
  readonly file: AtomicFile.File | undefined
  readonly text: string
  readonly undo: HostsBlocks.Undo
}

/** The file, and what it was before we changed it. */
const readBefore = async (directory: string): Promise<Before> => {
  const path = join(directory, fileName)
  const file = await AtomicFile.read(path, maxSize)
  if (file !== undefined) {
    const unchanged = {
      text: file.bytes.toString("latin1"),
      undo: { made: Option.none(), mode: Option.none<number>() }
    }
    return { file, ...Option.getOrElse(Result.getOrThrow(restored(file)), () => unchanged) }
  }
  if (await AtomicFile.isLink(path)) {
    throw new Error("is a symbolic link to nothing: remove it, or mount what it names")
  }
  const made = await AtomicFile.isThere(directory) ? "file" as const : "directory" as const
  return { file, text: "", undo: { made: Option.some(made), mode: Option.none<number>() } }
}

/** The permissions that the file had before we changed it, and those that it is to have. */
const modesOf = ({ file, undo }: Before, mirror: HostsToml.Mirror) => {
  const found = file === undefined || Option.isSome(undo.made) ? 0o644 : AtomicFile.permissions(file.stats)
  const original = Option.getOrElse(undo.mode, () => found)
  // Only root may read a password or a token, and containerd runs as root.
  return { original, mode: Option.isSome(mirror.authorization) ? original & 0o600 : original }
}

/** Puts the mirror into the file. */
export const configure = async (
  directory: string,
  registry: RegistryDirectory,
  options: { readonly mirror: HostsToml.Mirror; readonly prependExisting: boolean }
): Promise<Configured> => {
  const path = join(directory, fileName)
  const before = await readBefore(directory)
  const { file, text, undo } = before
  const { mode, original } = modesOf(before, options.mirror)
  // Other registries may use what a link points to, so it cannot name the server of one of them.
  const isShared = await AtomicFile.isLink(directory) || await AtomicFile.isLink(path)
  const installed = Result.getOrThrow(HostsToml.install(text, {
    ...options,
    upstream: {
      server: isShared ? Option.none() : registry.server,
      self: isShared ? Option.none() : registry.self,
      hosts: registry.hosts,
      certificates: await Certificates.find(directory)
    },
    undo: {
      made: undo.made,
      mode: Option.isNone(undo.made) && mode !== original ? Option.some(original) : Option.none()
    }
  }))
  const bytes = Buffer.from(installed.text, "latin1")
  const isChanged = file?.bytes.equals(bytes) !== true || AtomicFile.permissions(file.stats) !== mode
  if (isChanged) {
    await (file === undefined && Option.getOrUndefined(undo.made) === "directory"
      ? AtomicFile.makeDirectory(directory, (made) => AtomicFile.writeNew(join(made, fileName), bytes, mode))
      : AtomicFile.write(path, bytes, mode, file?.stats))
  }
  return { isChanged, removedHosts: installed.removed, refused: installed.refused }
}

/** Takes the mirror out of the file. Returns false if it was not there. */
export const restore = async (directory: string): Promise<boolean> => {
  const path = join(directory, fileName)
  const file = await AtomicFile.readIfFile(path)
  const original = file === undefined ? Option.none() : Result.getOrThrow(restored(file))
  if (file === undefined || Option.isNone(original)) return false
  const { text, undo } = original.value
  if (Option.isNone(undo.made) || text.trim() !== "") {
    const mode = Option.getOrElse(undo.mode, () => AtomicFile.permissions(file.stats))
    await AtomicFile.write(path, Buffer.from(text, "latin1"), mode, file.stats)
    return true
  }
  const isAlone = (await AtomicFile.list(directory)).length === 1
  await AtomicFile.remove(undo.made.value === "directory" && isAlone ? directory : path)
  return true
}

/** Whether somebody else made an entry of the config path: all but directories that we made together with a file. */
export const isForeign = async (path: string): Promise<boolean> => {
  const stats = await AtomicFile.ifThere(lstat(path))
  if (stats?.isDirectory() !== true) return stats !== undefined
  const names = await AtomicFile.ifThere(readdir(path))
  // A directory that we made comes and goes together with its file.
  if (names?.includes(fileName) !== true) return names !== undefined
  const file = await AtomicFile.readIfFile(join(path, fileName))
  // A link or a directory is not ours. If there is nothing, another run has just removed a file of ours.
  if (file === undefined) {
    return await AtomicFile.isLink(join(path, fileName)) || AtomicFile.isDirectory(join(path, fileName))
  }
  const original = Option.flatten(Result.getSuccess(restored(file)))
  return !Option.exists(original, ({ undo }) => Option.contains(undo.made, "directory"))
}
