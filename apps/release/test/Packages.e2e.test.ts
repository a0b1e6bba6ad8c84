import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { type Manifest, pack } from "@spegel-ts/release/PackageTarballs"
import { Effect } from "effect"
import { cp, glob, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { isBuiltin } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Consumer from "./Consumer.ts"

let directory: string
/** Where each package's tarball is, by the package's name. */
const tarballs = new Map<string, string>()
const manifests = new Map<string, Manifest>()
let effectVersion: string

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "spegel-packages-"))
  await Consumer.run(Consumer.repository, "npx", "tsc", "-b")
  for (const tarball of await Effect.runPromise(pack(Consumer.repository, join(directory, "tarballs")))) {
    const text = await Consumer.run(
      directory,
      "tar",
      "--extract",
      "--to-stdout",
      "--file",
      tarball,
      "package/package.json"
    )
    const manifest = JSON.parse(text) as Manifest
    tarballs.set(manifest.name, tarball)
    manifests.set(manifest.name, manifest)
  }
  effectVersion = await Consumer.make(directory, tarballs)
}, 600_000)

afterAll(() => rm(directory, { recursive: true, force: true }))

/** Public modules, as they are imported. */
const modules = (): ReadonlyArray<string> =>
  [...manifests].flatMap(([name, { exports }]) =>
    Object.keys(exports).filter((path) => path !== "./package.json").map((path) => name + path.slice(1))
  )

/** Suites for the tests of others: they run within vitest only. */
const isSuite = (module: string) => /(?:Conformance|Stress)$/.test(module)

/** Packages that a file imports. Declarations need Node's types where they name what is Node's. */
const importsOf = (file: string, text: string): ReadonlySet<string> => {
  const specifiers = [...text.matchAll(/(?:\bfrom|\bimport|\bimport\() ?"([^".][^"]*)"/g)].map(([, name = ""]) => name)
  const others = specifiers.filter((specifier) => !isBuiltin(specifier))
  const names = others.map((specifier) => /^(?:@[^/]+\/)?[^/]+/.exec(specifier)?.[0] ?? specifier)
  return new Set(file.endsWith(".d.ts") && others.length < specifiers.length ? [...names, "@types/node"] : names)
}

/** Programs in READMEs: blocks of code that begin with an import. The others are excerpts. */
const programsOf = (markdown: string): ReadonlyArray<string> =>
  [...markdown.matchAll(/^```ts\n(import [^]*?)^```/gm)].map(([, code = ""]) => code)

describe("the npm packages", () => {
  it("have licence and README, name their public modules, and close the others", async () => {
    for (const [name, tarball] of tarballs) {
      const files = (await Consumer.run(directory, "tar", "--list", "--file", tarball)).trim().split("\n")
      assert.includeMembers(files, ["package/LICENSE", "package/README.md", "package/package.json"], name)
      assert.isEmpty(files.filter((file) => /\/test\/|tsbuildinfo/.test(file)), name)
      const { devDependencies, exports, private: isPrivate, scripts } = manifests.get(name) as Manifest & {
        readonly devDependencies?: unknown
        readonly scripts?: unknown
      }
      assert.deepStrictEqual([devDependencies, isPrivate, scripts], [undefined, undefined, undefined], name)
      assert.notMatch(JSON.stringify(exports), /\/src\/|internal|@spegel-ts\/source/, name)
    }
    const closed = "@spegel-ts/router/internal/dht/Dht"
    const attempt = `await import(${
      JSON.stringify(closed)
    }).then(() => process.exit(1), ({ code }) => console.log(code))`
    await writeFile(join(directory, "closed.js"), attempt)
    assert.strictEqual(await Consumer.run(directory, process.execPath, "closed.js"), "ERR_PACKAGE_PATH_NOT_EXPORTED\n")
  })

  it("import nothing that they do not declare", async () => {
    for (const [name, { dependencies, optionalDependencies, peerDependencies }] of manifests) {
      const declared = Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies })
      for await (const file of glob("dist/**/*.{js,d.ts}", { cwd: join(directory, "node_modules", name) })) {
        const text = await readFile(join(directory, "node_modules", name, file), "utf8")
        const undeclared = [...importsOf(file, text)].filter((wanted) => !declared.includes(wanted))
        assert.isEmpty(undeclared, `${name}/${file}`)
      }
    }
  })

  it("share one effect with the program, of another patch version than they are built with", async () => {
    const found: Array<string> = []
    for await (const path of glob("node_modules/**/effect/package.json", { cwd: directory })) {
      const { name, version } = await Consumer.readJson<{ name: string; version: string }>(join(directory, path))
      if (name === "effect") found.push(`${path} ${version}`)
    }
    assert.deepStrictEqual(found, [`node_modules/effect/package.json ${effectVersion}`])
    await Consumer.run(directory, "npm", "ls", "--all")
  })

  it("are typed, for strict programs that import each module", async () => {
    const lines = modules().map((module, index) => `export * as module${index} from ${JSON.stringify(module)}\n`)
    await writeFile(join(directory, "src/modules.ts"), lines.join(""))
    for (const example of ["router-only", "own-store", "peer-transport"]) {
      await cp(join(Consumer.repository, "examples", example), join(directory, "src", example), {
        recursive: true,
        filter: (path) => !/(?:dist|test|node_modules|\.json|\.md)$/.test(path)
      })
    }
    await cp(
      join(Consumer.repository, "packages/router/test/MemoryRouter.test.ts"),
      join(directory, "src/MemoryRouter.test.ts")
    )
    let programs = 0
    for await (const path of glob("{,packages/*/}README.md", { cwd: Consumer.repository })) {
      for (const program of programsOf(await readFile(join(Consumer.repository, path), "utf8"))) {
        await writeFile(join(directory, `src/readme-${programs++}.ts`), program)
      }
    }
    assert.isAbove(programs, 3)
    await Consumer.run(directory, join(Consumer.repository, "node_modules/.bin/tsc"), "-p", ".")
  })

  it("load, each module and the thread that moves bytes, with plain Node", async () => {
    const loadable = modules().filter((module) => !isSuite(module))
    const imports = loadable.map((module) => `import ${JSON.stringify(module)}\n`)
    // A thread has a file of its own, and calls a library that is no JavaScript.
    const thread = `import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect, Layer } from "effect"
await Effect.runPromise(Effect.scoped(Layer.build(Transfer.layerZeroCopy)))
console.log("loaded")`
    await writeFile(join(directory, "load.js"), imports.join("") + thread)
    assert.strictEqual(await Consumer.run(directory, process.execPath, "load.js"), "loaded\n")
  })

  it("let two routers find each other, a registry serve a store, a transport fetch", async () => {
    const outputs = await Promise.all(
      ["router-only", "own-store", "peer-transport"].map((example) =>
        Consumer.run(directory, process.execPath, `src/${example}/main.ts`)
      )
    )
    assert.include(outputs[0], "recipe:pancakes is at 127.0.0.2\n")
    assert.match(outputs[1] ?? "", /flour, milk, eggs\n$/)
    assert.match(outputs[2] ?? "", /flour, milk, eggs\n$/)
  })

  it("test the layers of others, by their suites", async () => {
    await Consumer.run(directory, "npx", "vitest", "run", "--reporter=json", "--outputFile=suite.json")
    const { numPassedTests } = await Consumer.readJson<{ numPassedTests: number }>(join(directory, "suite.json"))
    assert.isAbove(numPassedTests, 3)
  })
})
