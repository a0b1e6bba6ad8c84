/** `npm run bench -- traces`. */
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { json } from "../Flags.ts"
import { measure } from "./cost.ts"
import { unrecorded } from "./unrecorded.ts"

const columns = ["", "start ms", "idle MiB", "used MiB", "CPU us/request", "requests/s"]
const width = 16

export const traces = Command.make("traces", {
  port: Flag.Int("port").pipe(
    Flag.withDescription("The port of each daemon, on an address of its own"),
    Flag.withDefault(26_251)
  ),
  rounds: Flag.Int("rounds").pipe(Flag.withDescription("Rounds of each setting"), Flag.withDefault(5)),
  json
}, ({ json, port, rounds }) =>
  Effect.gen(function*() {
    const unrecordedMicros = yield* Effect.promise(unrecorded)
    const figures = yield* Effect.promise(() => measure({ port, rounds }))
    yield* Console.log(columns.map((title) => title.padStart(width)).join(""))
    for (const { cpuMicrosPerRequest, idleMiB, requestsPerSecond, setting, startMillis, usedMiB } of figures) {
      const cells = [
        setting,
        startMillis.toFixed(0),
        idleMiB.toFixed(1),
        usedMiB.toFixed(1),
        cpuMicrosPerRequest.toFixed(0),
        requestsPerSecond.toFixed(0)
      ]
      yield* Console.log(cells.map((cell) => cell.padStart(width)).join(""))
    }
    yield* Console.log(`\nspans that nobody records: ${unrecordedMicros.toFixed(2)} us of CPU a request`)
    if (json) yield* Console.log(JSON.stringify({ figures, unrecordedMicros }))
  })).pipe(Command.withDescription("What traces cost in memory and CPU, exported and not"))
