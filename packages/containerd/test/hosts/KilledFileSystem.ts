/**
 * Kills a process at one of its changes of the file system: earlier changes are done, this one is not (of a write the
 * first half is), and nothing follows, neither reads nor what the code does after a failure.
 */
import * as PatchedFileSystem from "./PatchedFileSystem.ts"

const changes: ReadonlySet<string> = new Set([
  "link",
  "mkdir",
  "open",
  "rename",
  "rm",
  "handle.writeFile",
  "handle.chown",
  "handle.chmod",
  "handle.sync"
])

export class Killed extends Error {
  override readonly message = "killed"
}

/**
 * Runs `run` and calls `kill` in place of its change number `at`, counted from 1; gives how many changes were begun.
 * The default lets nothing more happen in this process.
 */
export const run = async (at: number, run: () => Promise<unknown>, kill: () => void = () => {}): Promise<number> => {
  let count = 0
  let dead = false
  const around: PatchedFileSystem.Around = async (name, args, perform) => {
    const isOfHandle = name.startsWith("handle.")
    if (dead && (!isOfHandle || changes.has(name))) throw new Killed()
    if (changes.has(name) && ++count === at) {
      dead = true
      const [bytes] = args
      if (name === "handle.writeFile" && bytes instanceof Uint8Array) {
        await perform([bytes.subarray(0, bytes.length / 2)])
      }
      kill()
      throw new Killed()
    }
    // Nothing here survives the machine, so nothing has to wait for the disk.
    return name === "handle.sync" ? undefined : perform(args)
  }
  await PatchedFileSystem.run(around, () =>
    run().catch((cause: unknown) => {
      if (!dead) throw cause
    }))
  return count
}
