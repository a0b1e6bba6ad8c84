/** The directory that containerd's `config_path` names, where it was not there: made, and removed again. */
import { mkdir, rm } from "node:fs/promises"
import { dirname, join, relative, resolve } from "node:path"
import * as AtomicFile from "./AtomicFile.ts"
import { isForeign } from "./HostsFile.ts"

/** Stands in a directory that was made here; has the number of directories that were made. */
const marker = ".made-by-spegel"

/** The topmost directory on the way to `path` that is not there. */
const firstMissing = async (path: string): Promise<string | undefined> => {
  let missing: string | undefined
  for (let at = resolve(path); !await AtomicFile.exists(at); at = dirname(at)) missing = at
  return missing
}

/** Makes it with those above it that are not there, marked so that `remove` knows. */
export const make = async (path: string): Promise<void> => {
  const missing = await firstMissing(path)
  if (missing === undefined) return
  const below = relative(missing, resolve(path))
  await AtomicFile.makeDirectory(missing, async (made) => {
    await mkdir(join(made, below), { recursive: true })
    const levels = below === "" ? 1 : below.split("/").length + 1
    await AtomicFile.writeNew(join(made, below, marker), Buffer.from(`${levels}\n`), 0o644)
  })
}

/** Removes what `make` made, unless something else has come into it: then the directory is whose that is. */
export const remove = async (path: string): Promise<void> => {
  const mark = join(path, marker)
  const levels = await AtomicFile.read(mark)
  if (levels === undefined) return
  const others = (await AtomicFile.list(path)).filter((name) => name !== marker)
  for (const name of others) if (await isForeign(join(path, name))) return rm(mark, { force: true })
  // A run at the same time has configured registries in it: the next removal finds the mark.
  if (others.length > 0) return
  let top = resolve(path)
  for (let level = 1; level < Number(levels.bytes.toString()); level++) {
    if ((await AtomicFile.list(dirname(top))).length > 1) break
    top = dirname(top)
  }
  try {
    await AtomicFile.remove(top)
  } catch (cause) {
    // A mount point stays where it is.
    if (!AtomicFile.hasCode(cause, "EBUSY")) throw cause
    await rm(mark, { force: true })
  }
}

/** Removes what killed runs left in it, in its directories and beside it. */
export const sweep = async (path: string): Promise<void> => {
  await AtomicFile.sweep(dirname(await firstMissing(path) ?? resolve(path)))
  await AtomicFile.sweep(path)
  for (const name of await AtomicFile.directories(path)) await AtomicFile.sweep(join(path, name))
}
