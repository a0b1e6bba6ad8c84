/** Makes a file with a new cluster key, where there is none yet. */
import * as ClusterKeyFile from "@spegel-ts/cluster-key/ClusterKeyFile"
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import { Data, Effect } from "effect"
import { randomUUID } from "node:crypto"
import { link, open, rm } from "node:fs/promises"

/** The file was not written: its directory is missing, or may not be written. */
export class KeyFileUnwritable extends Data.TaggedError("KeyFileUnwritable")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `cluster key ${this.path}: ${this.reason}`
  }
}

/** Writes a whole file that its owner alone may read. False if the name is taken. */
const writeNew = async (path: string, text: string): Promise<boolean> => {
  const temporary = `${path}.${randomUUID()}`
  try {
    const file = await open(temporary, "wx", 0o600)
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    // Unlike rename, link replaces nothing; and nobody sees a file that is half written.
    await link(temporary, path)
    return true
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "EEXIST") return false
    throw cause
  } finally {
    await rm(temporary, { force: true })
  }
}

/**
 * Writes a new key to `path`, with mode 0600. A file that exists is never changed: gives false if it has keys, and fails with
 * `ClusterKeyUnreadable` if it has not.
 */
export const make = Effect.fn("KeyFile.make")(function*(
  path: string
): Effect.fn.Return<boolean, KeyFileUnwritable | ClusterKeyFile.ClusterKeyUnreadable> {
  const isWritten = yield* Effect.tryPromise({
    try: () => writeNew(path, `${generate()}\n`),
    catch: (cause) => new KeyFileUnwritable({ path, reason: cause instanceof Error ? cause.message : String(cause) })
  })
  if (!isWritten) yield* ClusterKeyFile.load(path)
  return isWritten
})
