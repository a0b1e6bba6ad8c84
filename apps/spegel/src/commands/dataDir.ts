import { keyFile, lockFile, ownerFile } from "@spegel-ts/router/Identity"
import { Console, Data, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { chmod, rm } from "node:fs/promises"
import { join } from "node:path"
import { lostRunsFile } from "../daemon/LostRuns.ts"
import { dataDir as directory } from "./shared.ts"

/** The data directory was not changed. */
export class DataDirectoryUnusable extends Data.TaggedError("DataDirectoryUnusable")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `${this.path}: ${this.reason}; run as the directory's owner`
  }
}

const flags = {
  dataDir: directory,
  remove: Flag.Boolean("remove").pipe(
    Flag.withDescription("Remove the identity instead: what a mirror leaves behind"),
    Flag.withDefault(false)
  )
}

/**
 * The mirror needs root's group for containerd's socket, and not root. What a directory that root has made lacks for that
 * is the group's right to write; its owner may give that without any capability.
 */
export const dataDir = Command.make(
  "data-dir",
  flags,
  Effect.fnUntraced(function*({ dataDir, remove }) {
    const key = join(dataDir, keyFile)
    const attempt = (path: string, run: () => Promise<void>) =>
      Effect.tryPromise({
        try: run,
        catch: (cause) =>
          new DataDirectoryUnusable({ path, reason: cause instanceof Error ? cause.message : String(cause) })
      })
    if (remove) {
      yield* attempt(key, () => rm(key, { force: true }))
      for (const beside of [ownerFile, lockFile, lostRunsFile]) {
        yield* attempt(dataDir, () => rm(join(dataDir, beside), { force: true }))
      }
      return yield* Console.log(`removed ${key}`)
    }
    // One that a mirror has made is its own already, and nobody else may change that.
    yield* attempt(key, () => chmod(key, 0o640)).pipe(Effect.ignore)
    yield* attempt(dataDir, () => chmod(dataDir, 0o770)).pipe(
      Effect.andThen(Console.log(`${dataDir} is its group's`)),
      // A mirror that cannot keep its identity has one in memory: it is not to wait for this.
      Effect.catch((error) => Effect.logWarning(`${error.message}; a mirror may not be able to keep its identity`))
    )
  })
).pipe(Command.withDescription("Let the owner's group keep a mirror's identity in the data directory"))
