/** `npm run soak`. */
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { resolve } from "node:path"
import * as Bar from "../Bar.ts"
import { json } from "../Flags.ts"
import * as Isolated from "../herd/Isolated.ts"
import * as ReleaseBefore from "./ReleaseBefore.ts"
import * as Report from "./Report.ts"
import * as Soak from "./soak.ts"

const flags = {
  minutes: Flag.Int("minutes").pipe(Flag.withDescription("How long it runs"), Flag.withDefault(30)),
  nodes: Isolated.nodes(5),
  before: Flag.String("before").pipe(
    Flag.withDescription("The release before, as its bundle's main.js. Default: built from git, in a cache"),
    Flag.optional
  ),
  flag: Isolated.flag,
  logs: Isolated.logs("soak"),
  write: Flag.String("write").pipe(
    Flag.withDescription("Directory to write the table and the plot into: soak.md and soak.svg"),
    Flag.optional
  ),
  json
}

type Options = Command.Command.Config.Infer<typeof flags>

const measure = Effect.fnUntraced(function*({ flag, json, logs, minutes, nodes, write }: Options, before: string) {
  const plan: Soak.Plan = { minutes, nodes, before, flags: flag, logs }
  yield* Console.log(Report.head)
  const result = yield* Soak.run(plan, (row) => Console.log(Report.line(row)))
  for (const { image, node, reason } of result.totals.failures) {
    yield* Console.log(`\n${node} did not get ${image}: ${reason}`)
  }
  const bars = Report.bars(result, plan)
  yield* Console.log(`\n${Report.summary(result, plan)}`)
  yield* Bar.printAll(bars)
  if (Option.isSome(write)) yield* Report.write(write.value, result, plan)
  if (json) yield* Console.log(JSON.stringify({ rows: result.rows, bars }))
  return bars.every(Bar.isMet) ? 0 : 1
})

export const soak = Command.make("soak", flags, (options) =>
  Effect.gen(function*() {
    const before = Option.isSome(options.before) ? resolve(options.before.value) : yield* ReleaseBefore.fetch
    yield* Isolated.run(options.logs, (logs) => measure({ ...options, logs }, before))
  })).pipe(Command.withDescription("Pulls for half an hour, while mirrors are upgraded, restarted, lost and cut off"))
