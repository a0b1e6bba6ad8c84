import { assert, describe, it } from "@effect/vitest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import { Effect } from "effect"
import { rmSync } from "node:fs"
import { join } from "node:path"
import * as ConfigSetUps from "./ConfigSetUps.ts"
import * as ExaminedNode from "./ExaminedNode.ts"
import * as SetUps from "./SetUps.ts"

const missing = ContainerdDaemon.missingPrerequisite("setpriv")
const note = missing === undefined ? "" : ` (skipped: ${missing})`

/** Examines a node in every set-up, one after another; gives what is not as expected. */
const examineAll = Effect.fnUntraced(function*(node: ExaminedNode.ExaminedNode, setUps: ReadonlyArray<SetUps.SetUp>) {
  return yield* Effect.forEach(setUps, ({ expected, make, name }) =>
    Effect.gen(function*() {
      const { flags, wrapper } = (yield* make(node)) ?? {}
      const printed = yield* node.examine(flags, wrapper)
      const wrong = ExaminedNode.difference(printed, expected(node.version))
      rmSync(join(node.node.certs, "_default"), { recursive: true, force: true })
      yield* node.mend
      return wrong.map((text) => `${name}: ${text}`)
    }).pipe(Effect.scoped)).pipe(Effect.map((wrong) => wrong.flat()))
})

/** Whether containerd has anything of a canary. */
const leftovers = ({ node }: ExaminedNode.ExaminedNode) =>
  Effect.map(
    node.containerd.ctr("images", "ls"),
    (images) => images.split("\n").filter((line) => line.includes("canary"))
  )

describe.skipIf(missing !== undefined)(`spegel doctor${note}`, { timeout: 600_000 }, () => {
  for (const version of ContainerdPackages.versions) {
    it.live(`names what is wrong with files, flags and ports, with containerd ${version}`, () =>
      Effect.gen(function*() {
        const node = yield* ExaminedNode.start(version)
        const wrong = yield* examineAll(node, SetUps.withoutRestart)
        assert.deepStrictEqual(wrong, [])
        assert.deepStrictEqual(yield* leftovers(node), [])
      }))

    it.live(`names what is wrong with the configuration of containerd ${version}`, () =>
      Effect.gen(function*() {
        const node = yield* ExaminedNode.start(version)
        const wrong = yield* examineAll(node, ConfigSetUps.withRestart(version))
        assert.deepStrictEqual(wrong, [])
        assert.deepStrictEqual(yield* leftovers(node), [])
      }))
  }
})
