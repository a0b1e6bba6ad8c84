/**
 * The image's files, made from those of this machine: Node, the shared libraries it is linked to, and the bundle with
 * its code compiled. Two trees, so that a new version of the program is a small layer over one that stays.
 */
import { Data, Effect } from "effect"
import { execFile } from "node:child_process"
import { chmod, copyFile, cp, mkdir, readdir, rename, writeFile } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { promisify } from "node:util"
import type { ImageDefinition } from "./ImageDefinition.ts"

/** A file of the image could not be made. */
export class RootFilesystemFailed extends Data.TaggedError("RootFilesystemFailed")<{
  readonly what: string
  readonly reason: string
}> {
  override get message() {
    return `cannot make ${this.what}: ${this.reason}`
  }
}

export interface RootFilesystemOptions {
  /** Where to make the trees `base` and `app`; it must not be there yet. */
  readonly directory: string
  /** The Node binary that the image runs. */
  readonly node: string
  /** The directory that `npm run bundle` makes. */
  readonly bundle: string
  readonly license: string
  readonly definition: ImageDefinition
}

/** Users for whom the code is compiled ahead: the image's own, and root, as which the node's files are written. */
const users = [65532, 0]

const run = promisify(execFile)

const attempt = <A>(what: string, make: () => Promise<A>): Effect.Effect<A, RootFilesystemFailed> =>
  Effect.tryPromise({
    try: make,
    catch: (cause) => new RootFilesystemFailed({ what, reason: cause instanceof Error ? cause.message : String(cause) })
  })

const write = async (path: string, text: string) => {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text, { mode: 0o444 })
}

const copy = async (from: string, to: string, mode: number) => {
  await mkdir(dirname(to), { recursive: true })
  await copyFile(from, to)
  await chmod(to, mode)
}

/** Paths of the libraries that a program is linked to, its loader among them. */
const librariesOf = async (program: string): Promise<ReadonlyArray<string>> => {
  const { stdout } = await run("ldd", [program])
  return [...stdout.matchAll(/(?:=> |^\s+)(\/\S+) \(0x/gm)].map(([, path]) => path ?? "")
}

/** The Debian package that a library is from; its file may be listed below /usr or not. */
const packageOf = async (library: string): Promise<string> => {
  const { stdout } = await run("dpkg-query", ["--search", `*/${basename(library)}`])
  const line = stdout.split("\n").find((line) => line.endsWith(`: ${library}`) || line.endsWith(`: /usr${library}`))
  return line?.split(":", 1)[0] ?? ""
}

/** What tells a scanner which packages the libraries are, and their licences. */
const describePackages = async (tree: string, libraries: ReadonlyArray<string>) => {
  const packages = new Set((await Promise.all(libraries.map(packageOf))).filter((name) => name !== ""))
  for (const name of packages) {
    const { stdout } = await run("dpkg-query", ["--status", name])
    await write(join(tree, "var/lib/dpkg/status.d", name), stdout)
    const copyright = `usr/share/doc/${name}/copyright`
    await copy(`/${copyright}`, join(tree, copyright), 0o444)
  }
  await copy("/etc/os-release", join(tree, "etc/os-release"), 0o444)
}

const makeBase = async (tree: string, node: string) => {
  await copy(node, join(tree, "nodejs/bin/node"), 0o555)
  await copy(join(dirname(node), "..", "LICENSE"), join(tree, "nodejs/LICENSE"), 0o444)
  const libraries = await librariesOf(node)
  for (const library of libraries) await copy(library, join(tree, library), 0o555)
  await describePackages(tree, libraries)
  await write(
    join(tree, "etc/passwd"),
    "root:x:0:0:root:/:/sbin/nologin\nspegel:x:65532:65532:spegel:/:/sbin/nologin\n"
  )
  await write(join(tree, "etc/group"), "root:x:0:\nspegel:x:65532:\n")
  await write(join(tree, "etc/nsswitch.conf"), "hosts: files dns\n")
}

/**
 * Runs the program once in the image's files alone, so that Node keeps the compiled code, which has the program's path in
 * it. Node looks in a directory whose name ends with the user's id; the code is the same for all. A seed makes it the
 * same in each build.
 */
const compile = async (tree: string, { entrypoint, environment }: ImageDefinition) => {
  const [node = "", ...flags] = entrypoint.slice(0, -1)
  const enter = process.getuid?.() === 0 ? [] : ["--map-root-user"]
  await run("unshare", [
    ...enter,
    `--root=${tree}`,
    node,
    ...flags,
    "--random-seed=1",
    ...entrypoint.slice(-1),
    "version"
  ], {
    env: environment
  })
  const compiled = join(tree, environment["NODE_COMPILE_CACHE"] ?? "")
  const [made = ""] = await readdir(compiled)
  const code = join(compiled, made)
  for (const file of await readdir(code)) await chmod(join(code, file), 0o444)
  for (const user of users) {
    const name = made.replace(/-\d+$/, `-${user}`)
    if (name !== made) await cp(code, join(compiled, name), { recursive: true })
  }
}

const makeApp = async (tree: string, { bundle, definition, license }: RootFilesystemOptions) => {
  await cp(bundle, join(tree, "app"), { recursive: true })
  const files = await readdir(join(tree, "app"), { recursive: true, withFileTypes: true })
  for (const file of files) {
    await chmod(join(file.parentPath, file.name), file.isDirectory() ? 0o555 : 0o444)
  }
  await copy(license, join(tree, "app/LICENSE"), 0o444)
  await compile(tree, definition)
}

/** Makes both trees. Needs a Debian system: the libraries' packages are asked for at dpkg. */
export const make = Effect.fn("RootFilesystem.make")(function*(options: RootFilesystemOptions) {
  const [base, app] = [join(options.directory, "base"), join(options.directory, "app")]
  yield* attempt(options.directory, async () => {
    await mkdir(options.directory)
    await mkdir(app)
  })
  yield* attempt(`the files that ${options.node} needs`, () => makeBase(base, options.node))
  yield* attempt(
    `the program's files from ${options.bundle} (npm run bundle makes it)`,
    async () => {
      await makeApp(base, options)
      await rename(join(base, "app"), join(app, "app"))
    }
  )
})
