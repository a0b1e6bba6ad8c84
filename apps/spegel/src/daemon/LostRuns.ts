/**
 * Counts, in the data directory, the runs that used the zero-copy data plane and did not shut down in order. A fault in a foreign
 * call ends the process; the count keeps that from happening for ever. A file that cannot be read or written counts as none.
 */
import type { LostRuns } from "@spegel-ts/transfer/DataPlane"
import { Effect } from "effect"
import { mkdir, readFile, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"

/** The name of the file. */
export const lostRunsFile = "zero-copy-runs"

const digits = /^[0-9]{1,6}$/

const countIn = async (file: string): Promise<number> => {
  const text = await readFile(file, "latin1").catch(() => "")
  return digits.test(text) ? Number(text) : 0
}

/** Makes the directory as well: the identity is written later. */
const begin = async (dataDir: string, file: string): Promise<void> => {
  await mkdir(dataDir, { mode: 0o700 }).catch(() => {})
  await writeFile(file, String((await countIn(file)) + 1))
}

/** The count that is kept in a data directory. */
export const inDirectory = (dataDir: string): LostRuns => {
  const file = join(dataDir, lostRunsFile)
  return {
    count: Effect.promise(() => countIn(file)),
    begun: Effect.promise(() => begin(dataDir, file).catch(() => {})),
    closed: Effect.promise(() => rm(file, { force: true }).catch(() => {}))
  }
}
