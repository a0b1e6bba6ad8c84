import { assert, describe, it } from "@effect/vitest"
import * as DemoReport from "@spegel-ts/demo/DemoReport"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import * as Command from "@spegel-ts/testing/process/Command"
import { Effect, Schedule } from "effect"
import { readdirSync } from "node:fs"
import { tmpdir } from "node:os"
import { fileURLToPath } from "node:url"

const main = fileURLToPath(import.meta.resolve("@spegel-ts/demo/main"))
const start = (args: ReadonlyArray<string>) =>
  SpegelProcess.startNode(["--conditions=@spegel-ts/source", main, ...args])

const leftovers = () => readdirSync(tmpdir()).filter((name) => name.startsWith("spegel-demo-"))
const processes = Command.run("ps", ["-eo", "args="]).pipe(
  Effect.map((text) => text.split("\n").filter((line) => line.includes("spegel-demo-")))
)

describe("spegel demo", { timeout: 60_000 }, () => {
  it.live("takes one image from upstream for three nodes, and leaves nothing behind", () =>
    Effect.gen(function*() {
      const before = leftovers()
      const { code, stderr, stdout } = yield* Effect.flatMap(
        start(["--json", "--layers=2", "--layer-size=5"]),
        ({ finished }) => finished
      )
      assert.strictEqual(code, 0, stderr)
      const summary = JSON.parse(stdout.trim().split("\n").at(-1) ?? "")
      assert.strictEqual(summary.nodes, 3)
      assert.strictEqual(summary.upstreamBytes, summary.imageBytes, stdout)
      assert.strictEqual(summary.peerBytes, 2 * summary.imageBytes)
      assert.match(stdout, /node 3\s+layer 2\s+5\.0 MiB\s+peer 127\.0\.0\./)
      assert.deepStrictEqual(leftovers(), before)
    }))

  it.live.each(["SIGINT", "SIGHUP"] as const)(
    "stops everything on %s, as of Ctrl-C or a closed terminal",
    (signal) =>
      Effect.gen(function*() {
        const before = leftovers()
        const { child, finished, output } = yield* start([
          "--keep",
          "--layers=1",
          "--layer-size=1"
        ])
        yield* Effect.sync(() => output.stdout).pipe(
          Effect.repeat({
            schedule: Schedule.spaced("50 millis"),
            until: (text) => text.includes("Running until Ctrl-C")
          })
        )
        assert.isNotEmpty(yield* processes)
        child.kill(signal)
        assert.strictEqual((yield* finished).code, 0)
        assert.deepStrictEqual(yield* processes, [])
        assert.deepStrictEqual(leftovers(), before)
      })
  )
})

describe("DemoReport", () => {
  it("aligns its table and fits a terminal", () => {
    const row = {
      node: "node 1",
      kind: "layer 1",
      bytes: 16 * 1024 * 1024,
      servedBy: "peer 127.0.0.2",
      refusals: [],
      millis: 100
    }
    const lines = DemoReport.table([row, { ...row, kind: "manifest", bytes: 500 }]).split("\n")
    assert.deepStrictEqual(lines.map((line) => line.length <= 80), [true, true, true, true])
    assert.match(lines[2] ?? "", /16\.0 MiB {2}peer 127\.0\.0\.2 {2}100 {2}168 MB\/s$/)
    assert.deepStrictEqual(DemoReport.refusals([row, { ...row, servedBy: "upstream", refusals: ["answered 404"] }]), [
      "node 1: layer 1 comes from upstream: answered 404"
    ])
    assert.isAtMost(DemoReport.bar("node 1", "layer 4", 1e9, 2e9, 100).length, 80)
  })
})
