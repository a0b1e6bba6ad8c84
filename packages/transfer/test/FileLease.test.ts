import { assert, describe, it } from "@effect/vitest"
import * as FileLease from "@spegel-ts/transfer/FileLease"
import { execFile } from "node:child_process"
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"

const onLinux = process.platform === "linux"
const pathTo = (name: string) => new URL(name, import.meta.url).pathname

describe.skipIf(!onLinux)("FileLease", () => {
  it("sees a writer as long as there is one", async () => {
    const directory = mkdtempSync(join(tmpdir(), "lease-"))
    const path = join(directory, "file")
    writeFileSync(path, "bytes")
    const file = openSync(path, "r")
    const reader = openSync(path, "r")
    try {
      assert.strictEqual(FileLease.writerOf(file), "none")
      const writer = openSync(path, "a")
      assert.strictEqual(FileLease.writerOf(file), "open")
      closeSync(writer)
      assert.strictEqual(FileLease.writerOf(file), "none")
      rmSync(path)
      assert.strictEqual(FileLease.writerOf(file), "none", "a deleted file is asked like another")
    } finally {
      closeSync(file)
      closeSync(reader)
      rmSync(directory, { recursive: true })
    }
    assert.strictEqual(FileLease.writerOf(file), "unknown", "nothing is open")
  })

  it("survives another process that opens the file at that very moment", async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [
      "--conditions=@spegel-ts/source",
      pathTo("./LeaseRace.ts")
    ])
    assert.match(stdout, /^survived [1-9]/)
  }, 60_000)
})
