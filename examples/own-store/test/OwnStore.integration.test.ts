import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const main = fileURLToPath(new URL("../main.ts", import.meta.url))

describe("the example of a store of one's own", () => {
  it("serves what the store has, and ends", async () => {
    const args = ["--conditions=@spegel-ts/source", main]
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 30_000 })
    assert.strictEqual(stdout, "recipes/pancakes:v1 says: flour, milk, eggs\n")
  })
})
