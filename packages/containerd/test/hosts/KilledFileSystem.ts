/**
 * A process that is killed at one of its changes of the file system: the change before is done, that one is not (of a
 * write the first half is), and nothing comes after it, neither what the code does in failure nor reads.
 */
import fs, { type FileHandle } from "node:fs/promises"
import { syncBuiltinESMExports } from "node:module"

const changes = ["link", "mkdir", "open", "rename", "rm"] as const
const reads = ["lstat", "readFile", "readdir", "realpath", "stat"] as const
const handleChanges = ["writeFile", "chown", "chmod", "sync"] as const

export class Killed extends Error {
  override readonly message = "killed"
}

type AnyFunction = (...args: Array<unknown>) => Promise<unknown>

/**
 * Runs `run` and calls `kill` in place of its change number `at`, counted from 1; gives how many changes were begun. The
 * default lets nothing more happen in this process.
 */
export const run = async (at: number, run: () => Promise<unknown>, kill: () => void = () => {}): Promise<number> => {
  const target = fs as unknown as Record<string, AnyFunction>
  const originals = new Map<string, AnyFunction>()
  let count = 0
  let dead = false
  const step = (before: () => Promise<unknown> = async () => {}) => {
    if (dead) throw new Killed()
    count++
    if (count !== at) return Promise.resolve()
    dead = true
    return before().then(() => {
      kill()
      throw new Killed()
    })
  }
  const wrapHandle = (handle: FileHandle): FileHandle =>
    new Proxy(handle, {
      get: (inner, name) => {
        const method = Reflect.get(inner, name) as unknown
        if (typeof method !== "function") return method
        if (!handleChanges.some((change) => change === name)) return method.bind(inner) as unknown
        return async (...args: Array<unknown>) => {
          const half = name === "writeFile" && args[0] instanceof Uint8Array
            ? args[0].subarray(0, args[0].length / 2)
            : undefined
          await step(async () => half === undefined ? undefined : inner.writeFile(half))
          // Nothing here survives the machine, so nothing has to wait for the disk.
          return name === "sync" ? undefined : (method as AnyFunction).apply(inner, args)
        }
      }
    })
  for (const name of [...changes, ...reads]) {
    const original = target[name] as AnyFunction
    originals.set(name, original)
    target[name] = async (...args) => {
      if (changes.some((change) => change === name)) await step()
      else if (dead) throw new Killed()
      const result = await original.apply(fs, args)
      return name === "open" ? wrapHandle(result as FileHandle) : result
    }
  }
  syncBuiltinESMExports()
  try {
    await run().catch((cause: unknown) => {
      if (!dead) throw cause
    })
  } finally {
    for (const [name, original] of originals) target[name] = original
    syncBuiltinESMExports()
  }
  return count
}
