import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const main = fileURLToPath(new URL("../main.ts", import.meta.url))

describe("the example of the transport without a registry", () => {
  it("fetches what a peer advertises, and ends", async () => {
    const args = ["--conditions=@spegel-ts/source", main]
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 30_000 })
    assert.strictEqual(stdout, "127.0.0.2 sends: flour, milk, eggs\n")
  })
})
