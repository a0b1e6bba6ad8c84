/** Reads what service accounts and kubeconfigs have in common: files, and the server's URL. */
import { Effect } from "effect"
import { readFile } from "node:fs/promises"
import { ClusterAccessInvalid } from "../../ClusterAccess.ts"

export const invalid = (hint: string): ClusterAccessInvalid => new ClusterAccessInvalid({ hint })

/** Reads a file; `what` names its content in the error. */
export const read = (path: string, what: string): Effect.Effect<string, ClusterAccessInvalid> =>
  Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: (cause) => invalid(`${what} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`)
  })

export const serverOf = (text: string): Effect.Effect<URL, ClusterAccessInvalid> => {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol)
    ? Effect.succeed(url)
    : Effect.fail(invalid(`the server ${JSON.stringify(text)} is not an http or https URL`))
}
