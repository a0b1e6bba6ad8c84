import { assert, describe, it } from "@effect/vitest"
import * as ImageDefinition from "@spegel-ts/release/ImageDefinition"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const unit = fileURLToPath(new URL("../../../systemd/spegel.service", import.meta.url))
const analyze = (...args: ReadonlyArray<string>) => promisify(execFile)("systemd-analyze", args)

const lacking = ["/usr/bin/systemd-analyze", "/usr/bin/node"].filter((path) => !existsSync(path))
const missing = lacking.length > 0 ? `needs ${lacking.join(", ")}` : undefined
if (missing !== undefined && process.env["CI"] === "true") throw new Error(`CI lacks a prerequisite: ${missing}`)

describe("the systemd unit", () => {
  it.effect("runs Node as the image does", () =>
    Effect.gen(function*() {
      const { entrypoint, environment } = yield* ImageDefinition.load
      const text = yield* Effect.promise(() => readFile(unit, "utf8"))
      const [, start = ""] = /^ExecStart=(.+)$/m.exec(text) ?? []
      assert.include(start, ` ${entrypoint.slice(1, -1).join(" ")} `)
      const [, variables = ""] = /^Environment=(.+)$/m.exec(text) ?? []
      const names = (list: ReadonlyArray<string>) => list.map((pair) => pair.split("=", 1)[0])
      assert.deepStrictEqual(names(variables.split(" ")), Object.keys(environment))
    }))

  describe.skipIf(missing !== undefined)(
    `as systemd reads it${missing === undefined ? "" : ` (skipped: ${missing})`}`,
    () => {
      it("is one that systemd understands", async () => {
        const { stderr } = await analyze("verify", unit)
        assert.strictEqual(stderr.split("\n").filter((line) => line.includes("spegel.service")).join("\n"), "")
      })

      it("leaves the service little to do to the node", async () => {
        const { stdout } = await analyze("security", "--offline=true", unit)
        const [, exposure] = /Overall exposure level for spegel\.service: ([\d.]+)/.exec(stdout) ?? []
        assert.isAtMost(Number(exposure), 2)
      })
    }
  )
})
