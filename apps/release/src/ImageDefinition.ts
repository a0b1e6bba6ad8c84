/** What the image runs, as the last stage of the Dockerfile says it: the one place where that is written. */
import { Data, Effect } from "effect"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

/** The Dockerfile says something that is not understood here. */
export class DefinitionUnreadable extends Data.TaggedError("DefinitionUnreadable")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `${this.path}: ${this.reason}`
  }
}

export interface ImageDefinition {
  readonly entrypoint: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  /** `UID:GID`. */
  readonly user: string
}

export const dockerfile = fileURLToPath(new URL("../../../Dockerfile", import.meta.url))

/** Reads `ENV`, `USER` and `ENTRYPOINT` (a JSON array) of the last stage, each on one line. */
export const parse = (path: string, text: string): Effect.Effect<ImageDefinition, DefinitionUnreadable> =>
  Effect.try({
    try: () => {
      const lines = text.split("\n")
      const stage = lines.slice(lines.findLastIndex((line) => line.startsWith("FROM ")))
      const of = (instruction: string) =>
        stage.filter((line) => line.startsWith(`${instruction} `)).map((line) => line.slice(instruction.length + 1))
      const [user, entrypoint] = [of("USER").at(-1), of("ENTRYPOINT").at(-1)]
      if (user === undefined || entrypoint === undefined) throw new Error("its last stage lacks USER or ENTRYPOINT")
      return {
        user,
        entrypoint: JSON.parse(entrypoint) as ReadonlyArray<string>,
        environment: Object.fromEntries(
          of("ENV").flatMap((line) => line.split(/\s+/)).map((pair): [string, string] => {
            const at = pair.indexOf("=")
            return [pair.slice(0, at), pair.slice(at + 1)]
          })
        )
      }
    },
    catch: (cause) => new DefinitionUnreadable({ path, reason: cause instanceof Error ? cause.message : String(cause) })
  })

export const load: Effect.Effect<ImageDefinition, DefinitionUnreadable> = Effect.try({
  try: () => readFileSync(dockerfile, "utf8"),
  catch: (cause) => new DefinitionUnreadable({ path: dockerfile, reason: String(cause) })
}).pipe(Effect.flatMap((text) => parse(dockerfile, text)))
