/** Turns failures of file operations into `StoreUnavailable`, with the path and what to do. */
import { Effect } from "effect"
import { StoreUnavailable } from "../ContentStore.ts"

/** The `code` of a Node error. */
export const codeOf = (cause: unknown): string =>
  typeof cause === "object" && cause !== null && "code" in cause ? String(cause.code) : "an unknown error"

/** There is no such file: it, or a directory above it, does not exist. */
export const isMissing = (cause: unknown): boolean => codeOf(cause) === "ENOENT" || codeOf(cause) === "ENOTDIR"

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "does not exist",
  ENOTDIR: "is not a directory",
  EACCES: "may not be read by this user",
  EPERM: "may not be read by this user",
  EMFILE: "cannot be opened: this process has too many files open, or fs.inotify.max_user_instances is reached",
  ENFILE: "cannot be opened: the machine has too many files open"
}

export const unavailable = (operation: string, path: string) => (cause: unknown): StoreUnavailable =>
  new StoreUnavailable({
    operation,
    hint: `${path} ${reasons[codeOf(cause)] ?? `failed with ${codeOf(cause)}`}`,
    cause
  })

/** Runs a file operation on `path`. */
export const tryFile = <A>(
  operation: string,
  path: string,
  run: () => Promise<A>
): Effect.Effect<A, StoreUnavailable> => Effect.tryPromise({ try: run, catch: unavailable(operation, path) })
