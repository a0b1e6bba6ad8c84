/** The bytes that the suites move, in memory and in a file. */
import { Effect, type Scope } from "effect"
import { createCipheriv } from "node:crypto"
import { type FileHandle, mkdtemp, open, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

const size = 12 * 1024 * 1024

/** No two parts of it are the same. */
export const bytes: Buffer = createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16)).update(
  Buffer.alloc(size)
)

/** A folder that exists while the scope is open. */
export const folder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "transfer-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)

const opened = (path: string, flags: string): Effect.Effect<FileHandle, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => open(path, flags)),
    (handle) => Effect.promise(() => handle.close())
  )

/** A file with the bytes, opened. */
export const file: Effect.Effect<FileHandle, never, Scope.Scope> = Effect.gen(function*() {
  const path = join(yield* folder, "content")
  yield* Effect.promise(() => writeFile(path, bytes))
  return yield* opened(path, "r")
})

/** An empty file, opened to read and to append to. */
export const growing: Effect.Effect<
  { readonly handle: FileHandle; readonly append: (bytes: Buffer) => Effect.Effect<void> },
  never,
  Scope.Scope
> = Effect.gen(function*() {
  const path = join(yield* folder, "content")
  const writer = yield* opened(path, "a")
  const handle = yield* opened(path, "r")
  return { handle, append: (bytes) => Effect.promise(() => writer.appendFile(bytes)) }
})
