import { assert, describe, it } from "@effect/vitest"
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import * as StartingStates from "@spegel-ts/testing/containerd/StartingStates"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { options, registry, temporary } from "./HostsFixture.ts"

const program = fileURLToPath(new URL("KilledRun.ts", import.meta.url))

/** Whether the process was killed; it ends by itself where it makes fewer changes. */
const killedAt = (at: number, command: "write" | "remove", configPath: string): boolean => {
  const { signal, status, stderr } = spawnSync(
    process.execPath,
    ["--conditions=@spegel-ts/source", program, configPath, command, String(at)],
    { encoding: "utf8" }
  )
  if (signal === null && status !== 0) throw new Error(stderr)
  return signal === "SIGKILL"
}

/** Every change of every state is in the unit tests; here some changes of some states, and a kill that is real. */
const states = StartingStates.states.filter(({ name }) =>
  /^(?:no directory|several registries and files of others|an installation of Go Spegel)$/.test(name)
)

describe.each(states)("processes that are killed, from $name", (state) => {
  it.live.each(["write", "remove"] as const)("the next run completes a %s", (command) =>
    Effect.gen(function*() {
      let kills = 0
      for (let at = 1;; at += 4) {
        const directory = yield* temporary
        state.make(directory, registry)
        const before = StartingStates.snapshot(directory)
        state.before?.(directory, registry)
        const configPath = join(directory, "certs.d")
        if (command === "remove") yield* MirrorConfiguration.write(options(configPath))
        const killed = killedAt(at, command, configPath)
        yield* MirrorConfiguration.remove(configPath)
        assert.deepStrictEqual(StartingStates.snapshot(directory), before, `killed at ${at}`)
        if (!killed) break
        kills++
      }
      assert.isAbove(kills, 0)
    }).pipe(Effect.scoped), 120_000)
})
