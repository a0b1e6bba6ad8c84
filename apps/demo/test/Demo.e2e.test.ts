import { assert, describe, it } from "@effect/vitest"
import type * as FlippedByte from "@spegel-ts/demo/acts/FlippedByte"
import type * as KilledPeer from "@spegel-ts/demo/acts/KilledPeer"
import type * as Pulls from "@spegel-ts/demo/acts/Pulls"
import type * as Report from "@spegel-ts/demo/Report"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import * as Command from "@spegel-ts/testing/process/Command"
import { Effect, Schedule } from "effect"
import { readdirSync } from "node:fs"
import { tmpdir } from "node:os"
import { fileURLToPath } from "node:url"

interface Figures {
  readonly nodes: number
  readonly imageBytes: number
  readonly clientMegabytesPerSecond: number
  readonly shaped: Report.Comparison
  readonly unshaped: Report.Comparison
  readonly atOnce: Pulls.Pulls
  readonly killedPeer: KilledPeer.KilledPeer
  readonly flippedByte: ReadonlyArray<FlippedByte.FlippedByte>
}

const main = fileURLToPath(import.meta.resolve("@spegel-ts/demo/main"))
const start = (args: ReadonlyArray<string>) =>
  SpegelProcess.startNode(["--conditions=@spegel-ts/source", main, ...args])

const leftovers = () => readdirSync(tmpdir()).filter((name) => name.startsWith("spegel-demo-"))
const processes = Command.run("ps", ["-eo", "args="]).pipe(
  Effect.map((text) => text.split("\n").filter((line) => line.includes("spegel-demo-")))
)

describe("spegel demo", { timeout: 90_000 }, () => {
  it.live("says with --json what it saved, as upstream counted it, and leaves nothing behind", () =>
    Effect.gen(function*() {
      const before = leftovers()
      const { code, stderr, stdout } = yield* Effect.flatMap(
        start(["--json", "--layers=2", "--layer-size=5", "--upstream-bandwidth=200"]),
        ({ finished }) => finished
      )
      assert.strictEqual(code, 0, stderr)
      // Nothing but JSON.
      const figures = JSON.parse(stdout) as Figures
      const { atOnce, flippedByte, imageBytes, killedPeer, nodes, shaped, unshaped } = figures
      for (const pulls of [shaped.without, shaped.with, unshaped.without, unshaped.with, atOnce]) {
        assert.strictEqual(pulls.upstreamBytes, pulls.fromUpstream, stdout)
        assert.strictEqual(pulls.fromUpstream + pulls.fromPeers, nodes * imageBytes, stdout)
      }
      for (const comparison of [shaped, unshaped]) {
        assert.strictEqual(comparison.without.upstreamBytes, nodes * imageBytes)
        assert.strictEqual(comparison.with.upstreamBytes, imageBytes)
      }
      // A machine that stands still for a second may cost one layer more.
      assert.isAtMost(atOnce.upstreamBytes, 1.55 * imageBytes)
      assert.isAbove(figures.clientMegabytesPerSecond, 0)

      assert.isAbove(killedPeer.fromKilled, 0)
      assert.strictEqual(killedPeer.resumedAt, killedPeer.fromKilled)
      assert.strictEqual(killedPeer.fromKilled + killedPeer.fromSuccessor, killedPeer.layerBytes)
      assert.notStrictEqual(killedPeer.successor, killedPeer.killed)
      assert.strictEqual(killedPeer.upstreamBytes, 0)

      const [small, large] = flippedByte
      assert.include(small, { isRefusedByMirror: true, isRefusedByClient: false, tries: 1, isWithdrawn: true })
      assert.include(large, { isRefusedByClient: true, tries: 2, isWithdrawn: true })
      for (const { layerBytes, upstreamBytes } of flippedByte) assert.strictEqual(upstreamBytes, layerBytes)
      assert.deepStrictEqual(leftovers(), before)
    }))

  it.live.each(
    [
      ["SIGINT", "Running until Ctrl-C", ["--layers=1", "--layer-size=5", "--upstream-bandwidth=0"]],
      ["SIGHUP", "ready after", []],
      ["SIGINT", "With the mirror", ["--layers=1", "--layer-size=5"]]
    ] as const
  )(
    "stops everything on %s after \"%s\", as of Ctrl-C or a closed terminal",
    ([signal, line, args]) =>
      Effect.gen(function*() {
        const before = leftovers()
        const { child, finished, output } = yield* start(["--keep", ...args])
        yield* Effect.sync(() => output.stdout).pipe(
          Effect.repeat({ schedule: Schedule.spaced("50 millis"), until: (text) => text.includes(line) })
        )
        const pages = [...output.stdout.matchAll(/http:\S+\/debug\/web\//g)].map(([url]) => url)
        for (const page of pages) assert.strictEqual((yield* Effect.promise(() => fetch(page))).status, 200)
        assert.strictEqual(pages.length > 0, line === "Running until Ctrl-C")
        assert.isNotEmpty(yield* processes)
        child.kill(signal)
        assert.strictEqual((yield* finished).code, 0)
        assert.deepStrictEqual(yield* processes, [])
        assert.deepStrictEqual(leftovers(), before)
      })
  )
})
