/** Elections of many candidates over a real Kubernetes API, at the times that the mirror uses, against their bars. */
import * as ApiServer from "@spegel-ts/leader-election/testkit/ApiServer"
import * as Field from "@spegel-ts/leader-election/testkit/Field"
import { scenarios } from "@spegel-ts/leader-election/testkit/Scenarios"
import { Console, Effect } from "effect"
import * as Bar from "./Bar.ts"

/** Runs each scenario in turn, and tells its bars as they are known. */
export const election = (perProcess: number) =>
  Effect.gen(function*() {
    const server = yield* ApiServer.start
    const field = yield* Field.start({ server, name: "bench", processes: 5, perProcess })
    const bars: Array<Bar.Bar> = []
    for (const { run } of scenarios) {
      const measured = yield* run(field)
      yield* Effect.forEach(measured, (bar) => Console.log(Bar.print(bar)))
      bars.push(...measured)
    }
    const overlaps = { name: "moments with two leaders", value: field.overlaps().length, bound: 0, unit: "" }
    yield* Console.log(Bar.print(overlaps))
    return [...bars, overlaps]
  }).pipe(Effect.scoped)
