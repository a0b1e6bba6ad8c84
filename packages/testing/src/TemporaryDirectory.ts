/** Temporary directories, each removed when the scope closes. */
import { Effect } from "effect"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A directory whose name begins with `prefix`. */
export const withPrefix = (prefix: string) =>
  Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), prefix))),
    // Processes that were killed may still write, or release a mount.
    (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }))
  )

/** A directory for whatever a test needs. */
export const temporary = withPrefix("spegel-e2e-")
