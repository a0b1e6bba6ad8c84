/** `node:fs/promises` with every call of the code under test passed through a function of the test. */
import fs, { type FileHandle } from "node:fs/promises"
import { syncBuiltinESMExports } from "node:module"

type AnyFunction = (...args: Array<unknown>) => Promise<unknown>

/** Takes one call. `name` is that of the function, of a file's handle `handle.writeFile`; `perform` does it. */
export type Around = (
  name: string,
  args: ReadonlyArray<unknown>,
  perform: (args: ReadonlyArray<unknown>) => Promise<unknown>
) => Promise<unknown>

const names = ["link", "lstat", "mkdir", "open", "readFile", "readdir", "realpath", "rename", "rm", "stat"] as const

const wrapHandle = (handle: FileHandle, around: Around): FileHandle =>
  new Proxy(handle, {
    get: (inner, name) => {
      const method = Reflect.get(inner, name) as unknown
      return typeof method !== "function" || typeof name !== "string" ?
        method :
        async (...args: Array<unknown>) =>
          around(`handle.${name}`, args, (args) => (method as AnyFunction).apply(inner, [...args]))
    }
  })

/** The functions as they are, for a patch that does one by means of others. */
export const original = { ...fs }

/** Runs `run` with `around` in place of each call, in this whole process. */
export const run = async <A>(around: Around, run: () => Promise<A>): Promise<A> => {
  const target = fs as unknown as Record<string, AnyFunction>
  for (const name of names) {
    target[name] = async (...args) => {
      const result = await around(name, args, (args) => (original[name] as AnyFunction)(...args))
      return name === "open" ? wrapHandle(result as FileHandle, around) : result
    }
  }
  syncBuiltinESMExports()
  try {
    return await run()
  } finally {
    Object.assign(fs, original)
    syncBuiltinESMExports()
  }
}
