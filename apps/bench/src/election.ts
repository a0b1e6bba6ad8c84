/** Elections of many candidates over a real Kubernetes API, at the times that the mirror uses, against their bars. */
import * as ApiServer from "@spegel-ts/testing/kubernetes/ApiServer"
import * as Field from "@spegel-ts/testing/kubernetes/Field"
import { scenarios } from "@spegel-ts/testing/kubernetes/Scenarios"
import { Console, Effect } from "effect"
import * as Bar from "./Bar.ts"
import { electionMemory } from "./electionMemory.ts"

/** Runs each scenario in turn, and tells its bars as they are known. */
export const election = (perProcess: number, port: number) =>
  Effect.gen(function*() {
    const server = yield* ApiServer.start
    const bars: Array<Bar.Bar> = []
    const tell = Effect.fnUntraced(function*(measured: ReadonlyArray<Bar.Bar>) {
      yield* Effect.forEach(measured, (bar) => Console.log(Bar.print(bar)))
      bars.push(...measured)
    })
    yield* tell(yield* electionMemory(server, port))
    const field = yield* Field.start({ server, name: "bench", processes: 5, perProcess })
    for (const { run } of scenarios) yield* tell(yield* run(field))
    yield* tell([{ name: "moments with two leaders", value: field.overlaps().length, bound: 0, unit: "" }])
    return bars
  }).pipe(Effect.scoped)
