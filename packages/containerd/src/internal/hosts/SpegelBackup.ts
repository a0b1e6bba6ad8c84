/**
 * Takes over an installation of Go Spegel, which moves everything in the config path to `_backup` and writes its own
 * files. We remove its files and move the others back.
 */
import { readFile, rename } from "node:fs/promises"
import { join } from "node:path"
import * as AtomicFile from "./AtomicFile.ts"
import { fileName } from "./HostsFile.ts"

/**
 * The backup's name records the stage: as Spegel made it, while we remove Spegel's files, while we move the others back.
 * So the next run continues a run that was killed.
 */
const backup = "_backup"
const removing = ".spegel-backup-removing"
const restoring = ".spegel-backup-restoring"

/** The beginning of the files that Spegel writes, in all its versions. */
const written =
  /^(?:server = '[^'\n]*'\n)?\s*(?:\[host\]\n\s*)?\[host\.'https?:\/\/[^'\n]+'\]\n\s*capabilities = \['pull'(?:, 'resolve')?\]/

/** Files below a directory, as relative paths. */
const filesBelow = async (directory: string, from = ""): Promise<ReadonlyArray<string>> => {
  const files: Array<string> = []
  for (const name of await AtomicFile.list(join(directory, from))) {
    const path = join(from, name)
    const below = await AtomicFile.isDirectory(join(directory, path)) ? await filesBelow(directory, path) : [path]
    files.push(...below)
  }
  return files
}

const isWritten = async (directory: string): Promise<boolean> => {
  const file = await AtomicFile.readIfFile(join(directory, fileName))
  return file !== undefined && written.test(file.bytes.toString("latin1"))
}

/**
 * Removes Spegel's file in `directory` and the copies that it made of other files there; anything else stays. We move
 * them into `stage`, which is renamed before any original is moved back. So a late run fails, and cannot remove an
 * original.
 */
const removeWritten = async (directory: string, originals: string, stage: string): Promise<void> => {
  const isCopy = async (file: string) => {
    const original = await AtomicFile.ifThere(readFile(join(originals, file)))
    return original !== undefined && original.equals(await readFile(join(directory, file)))
  }
  const others = (await filesBelow(directory)).filter((file) => file !== fileName)
  const copies: Array<string> = []
  for (const file of others) if (await isCopy(file)) copies.push(file)
  if (copies.length === others.length) return AtomicFile.take(directory, stage)
  // Its own file goes last: if this run is killed, that file tells the next run that there is more to do.
  for (const file of [...copies, fileName]) await AtomicFile.take(join(directory, file), stage)
}

/** Moves everything below `from` to the same place below `to`. */
const moveBack = async (from: string, to: string): Promise<void> => {
  for (const name of await AtomicFile.list(from)) {
    const [source, target] = [join(from, name), join(to, name)]
    if (!await AtomicFile.exists(target)) await rename(source, target)
    else if (await AtomicFile.isDirectory(source) && await AtomicFile.isDirectory(target)) {
      await moveBack(source, target)
    } else if (await AtomicFile.exists(source)) {
      // Another run at the same time may be about to change that: the code makes us try again.
      const message = `${target} and Spegel's backup of it, ${source}, are both there: remove one of them`
      throw Object.assign(new Error(message), { code: "EEXIST" })
    }
  }
  await AtomicFile.remove(from)
}

/** Undoes what Spegel did. Returns false if there was nothing to undo. */
export const restore = async (root: string): Promise<boolean> => {
  const names = await AtomicFile.list(root)
  if (!names.some((name) => [backup, removing, restoring].includes(name))) return false
  const others = names.filter((name) => ![backup, removing, restoring].includes(name))
  const paths = { backup: join(root, backup), removing: join(root, removing), restoring: join(root, restoring) }
  const writtenHere: Array<string> = []
  for (const name of others) if (await isWritten(join(root, name))) writtenHere.push(name)

  if (names.includes(backup) && await AtomicFile.isDirectory(paths.backup)) {
    // Without a file of Spegel's beside it, somebody else made this directory, unless Spegel was stopped right after it.
    if (writtenHere.length === 0 && others.length > 0) return false
    await rename(paths.backup, paths.removing)
  }
  if (await AtomicFile.exists(paths.removing)) {
    for (const name of writtenHere) await removeWritten(join(root, name), join(paths.removing, name), paths.removing)
    await rename(paths.removing, paths.restoring)
  }
  if (!await AtomicFile.exists(paths.restoring)) return false
  await moveBack(paths.restoring, root)
  return true
}
