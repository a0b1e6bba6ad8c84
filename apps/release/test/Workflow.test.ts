import { assert, describe, it } from "@effect/vitest"
import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseDocument } from "yaml"

const directory = fileURLToPath(new URL("../../../.github/workflows", import.meta.url))

interface Workflow {
  readonly permissions: Readonly<Record<string, string>>
  readonly jobs: Readonly<
    Record<string, {
      readonly uses?: string
      readonly needs?: string
      readonly permissions?: Readonly<Record<string, string>>
      readonly "timeout-minutes"?: number
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
    it(`${file} is YAML, pins what it uses by commit, and gives no job rights that it does not name`, async () => {
      const { jobs, permissions } = await read(file)
      assert.isTrue(Object.values(permissions).every((right) => right === "read"))
      for (const [name, job] of Object.entries(jobs)) {
        if (job.uses === undefined) assert.isNumber(job["timeout-minutes"], name)
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
