import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { glob, mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const repository = fileURLToPath(new URL("../../..", import.meta.url))
const run = (command: string, args: ReadonlyArray<string>, cwd: string) => promisify(execFile)(command, args, { cwd })

describe("the npm packages", () => {
  it("work in a program that installs them, each module of theirs, with plain Node", async () => {
    const directory = await mkdtemp(join(tmpdir(), "spegel-packages-"))
    try {
      await run("npx", ["tsc", "-b"], repository)
      const packages = (await readdir(join(repository, "packages"))).filter((name) => name !== "testing")
      await run(
        "npm",
        ["pack", "--pack-destination", directory, ...packages.map((name) => `./packages/${name}`)],
        repository
      )
      const archives = (await readdir(directory)).filter((file) => file.endsWith(".tgz"))
      assert.lengthOf(archives, packages.length)
      for (const archive of archives) {
        const { stdout } = await run("tar", ["--list", "--file", archive], directory)
        assert.notMatch(stdout, /\/test\/|tsbuildinfo/, archive)
      }
      await writeFile(join(directory, "package.json"), JSON.stringify({ type: "module" }))
      await run("npm", [
        "install",
        "--prefer-offline",
        "--no-audit",
        "--no-fund",
        ...archives.map((file) => `./${file}`)
      ], directory)
      const modules: Array<string> = []
      for await (const path of glob("packages/*/src/*.ts", { cwd: repository })) {
        const [, name, module] = /^packages\/(.+)\/src\/(.+)\.ts$/.exec(path) ?? []
        // A suite for the tests of others asks for what they have.
        if (name !== "testing" && module !== undefined && !/(?:Conformance|Stress)$/.test(module)) {
          modules.push(`@spegel-ts/${name}/${module}`)
        }
      }
      await writeFile(join(directory, "main.js"), `for (const name of ${JSON.stringify(modules)}) await import(name)\n`)
      await run(process.execPath, ["main.js"], directory)
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  })
})
