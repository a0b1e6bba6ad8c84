import { assert, describe, it } from "@effect/vitest"
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import * as StartingStates from "@spegel-ts/testing/containerd/StartingStates"
import * as SeededRandom from "@spegel-ts/testing/SeededRandom"
import { Effect, Logger } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { options, registry } from "./HostsFixture.ts"
import * as ScheduledFileSystem from "./ScheduledFileSystem.ts"

/** How many orders are tried of each state, and the seed of the first: one that failed can be had again alone. */
const [count, first] = [Number(process.env["SPEGEL_SCHEDULES"] ?? 25), Number(process.env["SPEGEL_SCHEDULE"] ?? 1)]
/** Runs at the same time, of `write` and `remove`. */
const mixes = ["www", "wwr", "wrr", "rr", "wrw"]

const run = <A, E>(effect: Effect.Effect<A, E>) => Effect.runPromise(Effect.provide(effect, Logger.layer([])))

/** Lets runs change a state, in the order of a seed, and removes what they made. */
const tryOrder = async (seed: number, state: StartingStates.StartingState, directory: string) => {
  const random = SeededRandom.random(seed)
  const configPath = join(directory, "certs.d")
  const write = () =>
    run(MirrorConfiguration.write({
      ...options(configPath),
      mirroredRegistries: state.only === true || random.chance(0.3) ? [`http://${registry}`] : [],
      prependExisting: random.chance(0.5)
    }))
  const remove = () => run(MirrorConfiguration.remove(configPath))

  state.make(directory, registry)
  const before = StartingStates.snapshot(directory)
  state.before?.(directory, registry)
  if (random.chance(0.5)) await write()
  const runs = Array.from(random.pick(mixes), (kind) => kind === "w" ? write : remove)
  const steps = await ScheduledFileSystem.run(seed, runs, random.chance(0.4) ? 1 : 0)
  await remove()
  return { before, after: StartingStates.snapshot(directory), steps: steps.join("\n").replaceAll(directory, "") }
}

// Others are left as they are.
const mirrored = StartingStates.shapes.filter(({ isMirrored }) => isMirrored !== false)

describe.each(mirrored)("runs at the same time, from $name", (state) => {
  it("are undone by one removal, whatever their order and whichever is killed", async () => {
    for (let seed = first; seed < first + count; seed++) {
      const directory = mkdtempSync(join(tmpdir(), "schedules-"))
      try {
        const { after, before, steps } = await tryOrder(seed, state, directory)
        assert.deepStrictEqual(after, before, steps)
      } catch (cause) {
        throw new Error(`SPEGEL_SCHEDULE=${seed} SPEGEL_SCHEDULES=1 fails again`, { cause })
      } finally {
        rmSync(directory, { recursive: true, force: true })
      }
    }
  })
})
