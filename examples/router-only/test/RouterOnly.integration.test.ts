import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"

const main = fileURLToPath(new URL("../main.ts", import.meta.url))

describe("the example of the router alone", () => {
  it.live("finds what the other has, and ends", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* Effect.callback<{ code: unknown; stdout: string; stderr: string }>(
        (resume) => {
          execFile(
            process.execPath,
            ["--conditions=@spegel-ts/source", main],
            { timeout: 30_000 },
            (error, stdout, stderr) => resume(Effect.succeed({ code: error === null ? 0 : error.code, stdout, stderr }))
          )
        }
      )
      assert.strictEqual(code, 0, stderr)
      assert.include(stdout, "recipe:pancakes is at 127.0.0.2\n")
    }))
})
