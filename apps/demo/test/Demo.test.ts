import { assert, describe, it } from "@effect/vitest"
import { demo } from "@spegel-ts/demo/Demo"
import * as CommandLine from "@spegel-ts/spegel/cli/CommandLine"
import * as InProcess from "@spegel-ts/testing/node/InProcess"
import { Effect } from "effect"

const run = (...args: ReadonlyArray<string>) =>
  InProcess.runWith((output) => CommandLine.runCommand(demo, { args, environment: {} }, output))

describe("demo", () => {
  for (
    const [flag, value] of [["nodes", "1"], ["layers", "none"], ["layer-size", "4096"], [
      "upstream-bandwidth",
      "-1"
    ]] as const
  ) {
    it.effect(`names --${flag}=${value}`, () =>
      Effect.gen(function*() {
        const { complaints, succeeded } = yield* run(`--${flag}=${value}`)
        assert.isFalse(succeeded)
        assert.lengthOf(complaints, 1)
        assert.include(complaints[0], `--${flag}="${value}"`)
        assert.include(complaints[0], "from ")
      }))
  }
})
