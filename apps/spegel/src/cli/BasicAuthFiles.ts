/** The credentials that the mirror asks its clients for, in files as a mounted Secret has them. */
import { Data, Effect, Option, Redacted } from "effect"
import { readFile } from "node:fs/promises"
import { join } from "node:path"

export interface Credentials {
  readonly username: string
  readonly password: Redacted.Redacted
}

/** One of the files cannot be read, or only one of them is there. */
export class CredentialsUnreadable extends Data.TaggedError("CredentialsUnreadable")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `basic auth ${this.path}: ${this.reason}`
  }
}

const read = (path: string) =>
  Effect.tryPromise({
    try: async () => {
      try {
        return Option.some((await readFile(path, "utf8")).trim())
      } catch (cause) {
        if (typeof cause === "object" && cause !== null && "code" in cause && cause.code === "ENOENT") {
          return Option.none()
        }
        throw cause
      }
    },
    catch: (cause) =>
      new CredentialsUnreadable({ path, reason: cause instanceof Error ? cause.message : String(cause) })
  })

/** Reads the files `username` and `password`; none if neither is there. */
export const load = Effect.fn("BasicAuthFiles.load")(function*(directory: string) {
  const username = yield* read(join(directory, "username"))
  const password = yield* read(join(directory, "password"))
  if (Option.isNone(username) && Option.isNone(password)) return Option.none()
  if (Option.isNone(username) || Option.isNone(password)) {
    return yield* new CredentialsUnreadable({ path: directory, reason: "needs both files, username and password" })
  }
  return Option.some<Credentials>({ username: username.value, password: Redacted.make(password.value) })
})
