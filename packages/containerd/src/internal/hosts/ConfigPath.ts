/** Makes the directory that containerd's `config_path` names if it is missing, and removes it again. */
import { mkdir, rm } from "node:fs/promises"
import { dirname, join, relative, resolve } from "node:path"
import * as AtomicFile from "./AtomicFile.ts"
import { isForeign } from "./HostsFile.ts"

/** A file in a directory that we made. It contains how many directories we made, counted upwards. */
const marker = ".made-by-spegel"

/** The topmost missing directory on the way to `path`. */
const firstMissing = async (path: string): Promise<string | undefined> => {
  let missing: string | undefined
  for (let at = resolve(path); !await AtomicFile.exists(at); at = dirname(at)) missing = at
  return missing
}

/** Makes the directory and its missing parents, marked for `remove`. */
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

/** Removes what `make` made. If somebody else has put something into it, the directory stays, as theirs. */
export const remove = async (path: string): Promise<void> => {
  const mark = join(path, marker)
  const levels = await AtomicFile.read(mark)
  if (levels === undefined) return
  const others = (await AtomicFile.list(path)).filter((name) => name !== marker)
  for (const name of others) if (await isForeign(join(path, name))) return rm(mark, { force: true })
  // Another run has configured a registry in it meanwhile. The next removal needs the mark.
  if (others.length > 0) return
  let top = resolve(path)
  for (let level = 1; level < Number(levels.bytes.toString()); level++) {
    if ((await AtomicFile.list(dirname(top))).length > 1) break
    top = dirname(top)
  }
  try {
    await AtomicFile.remove(top)
  } catch (cause) {
    // A mount point cannot be removed.
    if (!AtomicFile.hasCode(cause, "EBUSY")) throw cause
    await rm(mark, { force: true })
  }
}

/** Removes what killed runs left in the directory, in its directories and beside it. */
export const sweep = async (path: string): Promise<void> => {
  await AtomicFile.sweep(dirname(await firstMissing(path) ?? resolve(path)))
  await AtomicFile.sweep(path)
  for (const name of await AtomicFile.directories(path)) await AtomicFile.sweep(join(path, name))
}
