import { assert, describe, it } from "@effect/vitest"
import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseDocument } from "yaml"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const directory = join(root, ".github/workflows")

interface Workflow {
  readonly permissions: Readonly<Record<string, string>>
  readonly jobs: Readonly<
    Record<string, {
      readonly uses?: string
      readonly needs?: string
      readonly permissions?: Readonly<Record<string, string>>
      readonly "timeout-minutes"?: number
      readonly container?: { readonly image: string }
      readonly steps?: ReadonlyArray<{ readonly uses?: string; readonly run?: string }>
    }>
  >
}

const files = await readdir(directory)
const read = async (file: string) => {
  const document = parseDocument(await readFile(join(directory, file), "utf8"), { strict: true })
  assert.deepStrictEqual(document.errors, [])
  return document.toJS() as Workflow
}

describe("workflows", () => {
  for (const file of files) {
    it(`${file} is YAML, pins what it uses by commit or digest, and gives no job rights that it does not name`, async () => {
      const { jobs, permissions } = await read(file)
      assert.isTrue(Object.values(permissions).every((right) => right === "read"))
      for (const [name, job] of Object.entries(jobs)) {
        if (job.uses === undefined) assert.isNumber(job["timeout-minutes"], name)
        if (job.container !== undefined) assert.match(job.container.image, /^[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}$/)
        for (const { uses } of job.steps ?? []) {
          if (uses !== undefined) assert.match(uses, /^[\w-]+\/[\w-]+@[0-9a-f]{40}$/)
        }
      }
    })
  }

  it("the release waits for all checks, and only what publishes may write", async () => {
    const { jobs } = await read("release.yml")
    const after = (name: string): ReadonlyArray<string> => {
      const before = jobs[name]?.needs
      return before === undefined ? [] : [before, ...after(before)]
    }
    for (const [name, { permissions = {} }] of Object.entries(jobs)) {
      if (name === "ci") assert.deepStrictEqual(permissions, { contents: "read" })
      else assert.include(after(name), "ci")
      const writes = Object.entries(permissions).filter(([, right]) => right === "write").map(([scope]) => scope)
      assert.includeMembers(["packages", "id-token"], writes)
    }
  })
})

describe("what is not ours", () => {
  it("is pinned where an image is built on it", async () => {
    const dockerfile = await readFile(join(root, "Dockerfile"), "utf8")
    const bases = [...dockerfile.matchAll(/^FROM (?:--platform=\S+ )?(\S+)/gm)].map(([, base]) => base)
    assert.isNotEmpty(bases)
    for (const base of bases) {
      if (base !== "scratch") assert.match(base ?? "", /^node:24\.\d+\.\d+-[\w-]+@sha256:[0-9a-f]{64}$/)
    }
    // A frontend would be an image too.
    assert.notInclude(dockerfile, "# syntax=")
    // Node of the image is the one that the tests run on.
    assert.include(bases[0], `node:${process.versions.node}-`)
  })

  it("is in a lockfile where a script runs it", async () => {
    const manifest = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as {
      readonly scripts: Readonly<Record<string, string>>
    }
    const ci = await readFile(join(root, ".ci/run"), "utf8")
    for (const script of [...Object.values(manifest.scripts), ci]) {
      assert.notMatch(script, /npx (?:--yes|-y|-p|--package)|npm (?:exec|install|i) /)
    }
  })
})
