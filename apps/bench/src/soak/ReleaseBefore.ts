/** The bundle of the release before, for the upgrade: built once from its sources in git, in a cache. Needs the network, once. */
import { run } from "@spegel-ts/testing/process/Command"
import { Data, Effect } from "effect"
import { existsSync } from "node:fs"
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises"
import { homedir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

/** 0.1.0: the commit that its chart in apps/cluster/fixtures was packed from. */
const commit = "76c33f4"

/** Its sources are not there, or cannot be built. */
export class ReleaseUnavailable extends Data.TaggedError("ReleaseUnavailable")<{ readonly reason: string }> {
  override get message() {
    return `the release before (commit ${commit}) cannot be built: ${this.reason}. Give its bundle with --before PATH/main.js; a shallow clone lacks its sources`
  }
}

const repository = fileURLToPath(new URL("../../../..", import.meta.url))
const cache = join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "spegel-ts", "releases")

const build = Effect.fnUntraced(function*(to: string) {
  yield* Effect.promise(() => mkdir(cache, { recursive: true }))
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(cache, "build-"))),
    (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
  )
  const archive = join(directory, "sources.tar")
  const cwd = join(directory, "sources")
  yield* run("git", ["-C", repository, "archive", `--output=${archive}`, commit])
  yield* Effect.promise(() => mkdir(cwd))
  yield* run("tar", ["-xf", archive, "-C", cwd])
  yield* run("npm", ["ci", "--silent", "--ignore-scripts"], { cwd })
  yield* run("npm", ["run", "--silent", "bundle"], { cwd })
  yield* Effect.promise(() => rename(join(cwd, "apps", "spegel", "bundle"), to))
}, Effect.scoped)

/** The path of its main module; builds it if the cache lacks it, which takes half a minute. */
export const fetch: Effect.Effect<string, ReleaseUnavailable> = Effect.suspend(() => {
  const bundle = join(cache, commit)
  return existsSync(bundle) ? Effect.void : build(bundle)
}).pipe(
  Effect.mapError(({ message }) => new ReleaseUnavailable({ reason: message })),
  Effect.as(join(cache, commit, "main.js"))
)
