/**
 * The npm packages as they are published: compiled modules, their sources for debuggers, README and licence. A published
 * manifest names each public module, and leaves out what serves this repository alone.
 */
import { Data, Effect } from "effect"
import { execFile } from "node:child_process"
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { promisify } from "node:util"

/** A tarball could not be made. */
export class PackFailed extends Data.TaggedError("PackFailed")<{
  readonly name: string
  readonly reason: string
}> {
  override get message() {
    return `cannot pack ${this.name}: ${this.reason}`
  }
}

export interface Manifest {
  readonly name: string
  readonly private?: boolean
  readonly exports: Readonly<Record<string, unknown>>
  readonly dependencies?: Readonly<Record<string, string>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly peerDependencies?: Readonly<Record<string, string>>
}

/** The files that the compiler makes of one source. */
const compiled = [".js", ".js.map", ".d.ts", ".d.ts.map"]

/** Fields that no user of a package needs. */
const ownFields = new Set(["devDependencies", "scripts"])

/** Modules of a package, as paths below `src` without their ending. */
const modulesOf = async (directory: string): Promise<ReadonlyArray<string>> => {
  const files = await readdir(join(directory, "src"), { recursive: true })
  return files.filter((file) => file.endsWith(".ts")).map((file) => file.slice(0, -".ts".length)).sort()
}

export const isPublic = (module: string) => !module.startsWith("internal/")

/** The manifest to publish for a package that has these modules. */
export const publishedManifest = (manifest: Manifest, modules: ReadonlyArray<string>): Manifest => ({
  ...Object.fromEntries(Object.entries(manifest).filter(([field]) => !ownFields.has(field))) as unknown as Manifest,
  exports: {
    "./package.json": "./package.json",
    ...Object.fromEntries(
      modules.filter(isPublic).map((module) => [
        `./${module}`,
        { types: `./dist/${module}.d.ts`, default: `./dist/${module}.js` }
      ])
    )
  }
})

/** Lays out a package as its tarball has it. `dist` may have files of sources that were removed: those are skipped. */
const stage = async (repository: string, directory: string, target: string, manifest: Manifest) => {
  const modules = await modulesOf(directory)
  await writeFile(join(target, "package.json"), JSON.stringify(publishedManifest(manifest, modules), null, 2))
  for (const module of modules) {
    await mkdir(dirname(join(target, "dist", module)), { recursive: true })
    for (const ending of compiled) {
      await cp(join(directory, "dist", module + ending), join(target, "dist", module + ending))
    }
  }
  await cp(join(directory, "src"), join(target, "src"), { recursive: true })
  await cp(join(directory, "README.md"), join(target, "README.md"))
  await cp(join(repository, "LICENSE"), join(target, "LICENSE"))
}

const packOne = async (repository: string, directory: string, manifest: Manifest, out: string) => {
  const target = await mkdtemp(join(tmpdir(), "spegel-package-"))
  try {
    await stage(repository, directory, target, manifest)
    const { stdout } = await promisify(execFile)("npm", ["pack", "--json", "--pack-destination", out], { cwd: target })
    const [packed] = JSON.parse(stdout) as ReadonlyArray<{ readonly filename: string }>
    return join(out, packed?.filename ?? "")
  } finally {
    await rm(target, { recursive: true, force: true })
  }
}

/**
 * Packs all public packages into a directory and returns the tarballs' paths. The packages must be compiled. Fails with
 * `PackFailed` if a package lacks a file that every tarball has.
 */
export const pack = Effect.fnUntraced(function*(repository: string, out: string) {
  const names = yield* Effect.promise(() => readdir(join(repository, "packages")))
  yield* Effect.promise(() => mkdir(out, { recursive: true }))
  const tarballs: Array<string> = []
  for (const name of names.toSorted()) {
    const directory = join(repository, "packages", name)
    const tarball = yield* Effect.tryPromise({
      try: async () => {
        const manifest = JSON.parse(await readFile(join(directory, "package.json"), "utf8")) as Manifest
        return manifest.private === true ? undefined : await packOne(repository, directory, manifest, out)
      },
      catch: (cause) => new PackFailed({ name, reason: cause instanceof Error ? cause.message : String(cause) })
    })
    if (tarball !== undefined) tarballs.push(tarball)
  }
  return tarballs
})
