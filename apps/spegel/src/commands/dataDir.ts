import { keyFile, lockFile, ownerFile } from "@spegel-ts/router/Identity"
import { Console, Data, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { chmod, rm } from "node:fs/promises"
import { join } from "node:path"
import { flagOnly, flagsOf } from "../cli/Setting.ts"
import { lostRunsFile } from "../daemon/LostRuns.ts"
import { dataDir as directory } from "../settings/SharedSettings.ts"

/** The data directory was not changed. */
export class DataDirectoryUnusable extends Data.TaggedError("DataDirectoryUnusable")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `${this.path}: ${this.reason}; run as the directory's owner`
  }
}

export const dataDirSettings = {
  dataDir: directory,
  remove: flagOnly({
    description: "Remove the identity instead: it is all that a mirror leaves behind",
    fallback: false,
    metavar: undefined,
    flag: Flag.Boolean
  })
}

/**
 * The mirror needs root's group for containerd's socket, but not root. In a directory that root has made, the group lacks the right
 * to write; the owner of the directory may grant it without any capability.
 */
export const dataDir = Command.make(
  "data-dir",
  flagsOf(dataDirSettings),
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
    // A key that a mirror has made is its own already, and nobody else may change that.
    yield* attempt(key, () => chmod(key, 0o640)).pipe(Effect.ignore)
    yield* attempt(dataDir, () => chmod(dataDir, 0o770)).pipe(
      Effect.andThen(Console.log(`${dataDir} can be written by its group`)),
      // A mirror that cannot keep its identity has one in memory: this must not stop its start.
      Effect.catch((error) => Effect.logWarning(`${error.message}; a mirror may not be able to keep its identity`))
    )
  })
).pipe(
  Command.withDescription("Let the owner's group keep a mirror's identity in the data directory"),
  Command.withExamples([
    { command: "spegel data-dir --data-dir=/var/lib/spegel", description: "Before the first mirror runs" },
    { command: "spegel data-dir --remove", description: "After the last one" }
  ])
)
