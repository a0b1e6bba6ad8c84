/** `npm run bench -- schedules`. */
import { Cause, Console, Effect, Exit } from "effect"
import { Command, Flag } from "effect/cli"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import * as Bar from "../Bar.ts"
import { json } from "../Flags.ts"
import * as Isolated from "../herd/Isolated.ts"
import * as Promises from "./Promises.ts"
import * as Report from "./Report.ts"
import type { Ran } from "./Run.ts"
import * as Schedules from "./schedules.ts"

const flags = {
  schedules: Flag.Int("schedules").pipe(Flag.withDescription("How many schedules run"), Flag.withDefault(300)),
  seed: Flag.Int("seed").pipe(
    Flag.withDescription("Seed of the first schedule; each one has the next"),
    Flag.withDefault(1)
  ),
  nodes: Isolated.nodes(5),
  flag: Isolated.flag,
  logs: Isolated.logs("schedules", "Directory for the mirrors' logs, and for the events and requests of each schedule"),
  json
}

type Options = Command.Command.Config.Infer<typeof flags>

/** Keeps what is known of a schedule, and says which promises it has broken. */
const tell = Effect.fnUntraced(function*(ran: Ran, { logs, nodes }: Schedules.Plan) {
  yield* Console.log(Report.line(ran))
  const broken = Promises.broken(ran, nodes)
  const { seed } = ran.schedule
  const file = join(logs, `schedule-${seed}.json`)
  const pulls = ran.pulls.map(({ node, ...pull }) => ({ node: node.name, ...pull }))
  yield* Effect.promise(() => writeFile(file, JSON.stringify({ broken, ...ran, pulls }, null, 2)))
  if (broken.length === 0) return
  yield* Console.log(broken.map((text) => `FAILED  seed ${seed}: ${text}`).join("\n"))
  yield* Console.log(`        its requests and events are in ${file}, the mirrors' logs of that time beside it`)
})

const measure = Effect.fnUntraced(function*({ flag, json, logs, nodes, schedules, seed }: Options) {
  const plan: Schedules.Plan = { nodes, schedules, seed, flags: flag, logs }
  yield* Console.log(Report.head)
  let done = 0
  const exit = yield* Effect.exit(
    Schedules.run(plan, (ran) => Effect.andThen(Effect.sync(() => done++), tell(ran, plan)))
  )
  if (Exit.isFailure(exit)) {
    yield* Console.log(`FAILED  after ${done} schedules (the next seed is ${seed + done}): ${Cause.pretty(exit.cause)}`)
    return 1
  }
  const bars = Report.bars(exit.value, plan)
  yield* Console.log(`\n${Report.summary(exit.value)}`)
  yield* Bar.printAll(bars)
  if (json) yield* Console.log(JSON.stringify(bars))
  return bars.every(Bar.isMet) ? 0 : 1
})

export const schedules = Command.make(
  "schedules",
  flags,
  (options) => Isolated.run(options.logs, (logs) => measure({ ...options, logs }))
).pipe(
  Command.withDescription("Random schedules of crashes, restarts and aborts while nodes pull a new image at once")
)
