/**
 * Random schedules, one after another, on the same nodes with real containerd daemons and mirrors: all nodes pull a new image, while
 * mirrors and daemons are killed, stopped, frozen and started again, and clients cut short.
 */
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Duration, Effect } from "effect"
import * as Herd from "../herd/herd.ts"
import * as Image from "../Image.ts"
import { Mirrors } from "../soak/Mirrors.ts"
import * as Descriptors from "./Descriptors.ts"
import * as Requests from "./Requests.ts"
import * as Run from "./Run.ts"
import * as Schedule from "./Schedule.ts"

export interface Plan {
  readonly nodes: number
  readonly schedules: number
  /** Of the first schedule; each one has the next. */
  readonly seed: number
  /** More flags of the mirrors. */
  readonly flags: ReadonlyArray<string>
  /** The directory for the logs of the mirrors. */
  readonly logs: string
}

/** The mirror of a node, before the first schedule and after the last. */
export interface AtRest {
  readonly node: string
  readonly before: Descriptors.Descriptors
  readonly after: Descriptors.Descriptors
  /** What came of SIGTERM at the end. */
  readonly code: number | null
  readonly stopSeconds: number
}

export interface Result {
  readonly ran: ReadonlyArray<Run.Ran>
  readonly atRest: ReadonlyArray<AtRest>
}

const kilobyte = 1000
/** In KB/s: an image takes one to three seconds. */
const upstreamSpeed = 10_000
const linkSpeed = 25_000
const none: Descriptors.Descriptors = { all: 0, content: 0 }

/** Runs all of them; `onRun` is called after each one. */
export const run = Effect.fnUntraced(function*(plan: Plan, onRun: (ran: Run.Ran) => Effect.Effect<void>) {
  const { nodes, upstream } = yield* Herd.startNodes({ nodes: plan.nodes, upstreamSpeed, linkSpeed })
  const image = { flags: Image.flags, environment: Image.compiledIn(yield* temporary) }
  const mirrors = new Mirrors(nodes, yield* Effect.scope, { logs: plan.logs, node: image })
  const release = { flags: plan.flags }
  yield* Effect.forEach(nodes, (node) => mirrors.start(node, release), { concurrency: "unbounded", discard: true })
  const ids = yield* Effect.forEach(nodes, (node) => Effect.map(Requests.idOf(node), (id) => [id, node.name] as const))
  const cluster: Run.Cluster = { nodes, upstream, mirrors, release, names: new Map(ids) }
  const scheduleOf = (seed: number) =>
    Schedule.make({ seed, nodes: plan.nodes, upstreamSpeed: upstreamSpeed * kilobyte })

  // The nodes meet, and have pulled once.
  yield* Run.run(cluster, { ...scheduleOf(plan.seed + plan.schedules), events: [] })
  const before = yield* Descriptors.atRest(mirrors)
  const ran: Array<Run.Ran> = []
  for (let index = 0; index < plan.schedules; index++) {
    const one = yield* Run.run(cluster, scheduleOf(plan.seed + index))
    ran.push(one)
    yield* onRun(one)
  }
  const after = yield* Descriptors.atRest(mirrors)
  const atRest = yield* Effect.forEach(
    nodes,
    (node) =>
      Effect.map(Effect.timed(mirrors.stop(node)), ([duration, code]): AtRest => ({
        node: node.name,
        before: before.get(node.name) ?? none,
        after: after.get(node.name) ?? none,
        code,
        stopSeconds: Duration.toSeconds(duration)
      }))
  )
  return { ran, atRest } satisfies Result
}, Effect.scoped)
