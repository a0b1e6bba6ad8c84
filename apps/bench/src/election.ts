/** Elections of many candidates over a real Kubernetes API, at the times that the mirror uses, against their bars. */
import * as ApiServer from "@spegel-ts/testing/kubernetes/ApiServer"
import * as Field from "@spegel-ts/testing/kubernetes/Field"
import { scenarios } from "@spegel-ts/testing/kubernetes/Scenarios"
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import * as Bar from "./Bar.ts"
import { electionMemory } from "./electionMemory.ts"
import { json } from "./Flags.ts"

const port = Flag.Int("port").pipe(Flag.withDescription("First of three ports"), Flag.withDefault(25_851))

/** Runs each scenario in turn, and prints its bars as they are known. */
const election = Effect.fnUntraced(function*(perProcess: number, port: number) {
  const server = yield* ApiServer.start
  const bars: Array<Bar.Bar> = []
  const print = Effect.fnUntraced(function*(measured: ReadonlyArray<Bar.Bar>) {
    yield* Bar.printAll(measured)
    bars.push(...measured)
  })
  yield* print(yield* electionMemory(server, port))
  const field = yield* Field.start({ server, name: "bench", processes: 5, perProcess })
  for (const { run } of scenarios) yield* print(yield* run(field))
  yield* print([{ name: "moments with two leaders", value: field.overlaps().length, bound: 0, unit: "" }])
  return bars
}, Effect.scoped)

const elections = Command.make("election", {
  perProcess: Flag.Int("per-process").pipe(
    Flag.withDescription("Candidates in each of the five processes"),
    Flag.withDefault(10)
  ),
  port,
  json
}, ({ json, perProcess, port }) =>
  Effect.gen(function*() {
    const bars = yield* election(perProcess, port)
    if (json) yield* Console.log(JSON.stringify({ candidates: 5 * perProcess, bars }))
  })).pipe(
    Command.withDescription(
      "Elections over a real Kubernetes API (needs etcd and go), 4 minutes; memory too where there is a bundle"
    )
  )

const memory = Command.make(
  "election-memory",
  { port },
  ({ port }) =>
    Effect.flatMap(ApiServer.start, (server) => electionMemory(server, port)).pipe(
      Effect.flatMap(Bar.printAll),
      Effect.scoped
    )
).pipe(
  Command.withDescription(
    "Memory of a bundled daemon with and without the bootstrap kind kubernetes (needs etcd, go and a bundle)"
  )
)

export const commands = [elections, memory] as const
