/** A stranger's project: an empty directory into which the packed packages are installed. */
import { execFile } from "node:child_process"
import { cp, mkdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

export const repository = fileURLToPath(new URL("../../..", import.meta.url))

/** Runs a program and returns its standard output. If it fails, the error has all that it printed. */
export const run = async (cwd: string, command: string, ...args: ReadonlyArray<string>): Promise<string> => {
  try {
    return (await promisify(execFile)(command, args, { cwd, maxBuffer: 64 * 1024 * 1024 })).stdout
  } catch (error) {
    const { stderr, stdout } = error as { readonly stderr?: string; readonly stdout?: string }
    throw new Error(`${command} ${args.join(" ")}\n${stdout}\n${stderr}`, { cause: error })
  }
}

export const readJson = async <A>(path: string) => JSON.parse(await readFile(path, "utf8")) as A

interface Manifest {
  readonly version: string
  readonly devDependencies: Readonly<Record<string, string>>
}

/** `4.1.1` for `4.1.0`. */
const nextPatch = (version: string) => version.replace(/\d+$/, (patch) => String(Number(patch) + 1))

/**
 * A stand-in for another patch version of `effect`: the code that is installed here, under the next patch version's number.
 * Only the version that the packages are built with is published within their range.
 */
const otherEffect = async (directory: string) => {
  const target = join(directory, "effect")
  await cp(join(repository, "node_modules/effect"), target, {
    recursive: true,
    filter: (path) => !/\/effect\/(?:ai-docs|src)$|\.map$/.test(path)
  })
  const manifest = await readJson<Manifest>(join(target, "package.json"))
  const version = nextPatch(manifest.version)
  await writeFile(join(target, "package.json"), JSON.stringify({ ...manifest, version }))
  return { version, path: target }
}

/**
 * Unlike this repository, the project checks the declarations that it imports. Those of effect and libp2p use types of the
 * DOM.
 */
const compilerOptions = {
  target: "ES2024",
  lib: ["ES2024", "ESNext.Disposable", "DOM"],
  module: "NodeNext",
  types: ["node"],
  strict: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: false,
  verbatimModuleSyntax: true,
  allowImportingTsExtensions: true,
  noEmit: true
}

/** Makes the project and installs into it. Returns the version of `effect` that the project asks for. */
export const make = async (directory: string, tarballs: ReadonlyMap<string, string>): Promise<string> => {
  const effect = await otherEffect(directory)
  const { devDependencies } = await readJson<Manifest>(join(repository, "package.json"))
  const { version: platform } = await readJson<Manifest>(
    join(repository, "node_modules/@effect/platform-node/package.json")
  )
  const archive = (await run(directory, "npm", "pack", "--silent", effect.path)).trim()
  await writeFile(
    join(directory, "package.json"),
    JSON.stringify({
      type: "module",
      dependencies: {
        ...Object.fromEntries([...tarballs].map(([name, path]) => [name, `file:${path}`])),
        effect: `file:${archive}`,
        "@effect/platform-node": platform,
        "@effect/vitest": devDependencies["@effect/vitest"],
        "@types/node": devDependencies["@types/node"],
        vitest: devDependencies["vitest"]
      }
    })
  )
  await writeFile(join(directory, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["src"] }))
  await mkdir(join(directory, "src"))
  await run(directory, "npm", "install", "--prefer-offline", "--no-audit", "--no-fund")
  return effect.version
}
