/** Runs a schedule: all nodes pull an image that none of them has, while things happen to them. */
import { Effect, Schedule as Repetition } from "effect"
import type { HerdNode } from "../herd/HerdNode.ts"
import type { HerdUpstream } from "../herd/HerdUpstream.ts"
import { since } from "../herd/Pulls.ts"
import type { Mirrors, Release } from "../soak/Mirrors.ts"
import * as Happening from "./Happening.ts"
import { type Pulled, Puller } from "./Puller.ts"
import { type Answered, Requests } from "./Requests.ts"
import type { Event, Schedule } from "./Schedule.ts"
import * as Sources from "./Sources.ts"

export interface Cluster {
  readonly nodes: ReadonlyArray<HerdNode>
  readonly upstream: HerdUpstream
  readonly mirrors: Mirrors
  readonly release: Release
  /** The names of nodes by the ids of their mirrors. */
  readonly names: ReadonlyMap<string, string>
}

/** A schedule that has run. */
export interface Ran {
  readonly schedule: Schedule
  /** When it began, in milliseconds since the epoch. */
  readonly time: number
  readonly seconds: number
  readonly pulls: ReadonlyArray<Pulled>
  readonly happened: ReadonlyArray<Happening.Happened>
  readonly requests: ReadonlyArray<Answered>
  readonly rings: ReadonlyArray<Sources.Ring>
  /** Bytes from upstream as a multiple of the image, and those of each node. */
  readonly copies: number
  readonly copiesOf: Readonly<Record<string, number>>
  /** Bytes that nodes took from each other, likewise, as far as their mirrors' logs were read. */
  readonly shared: number
  /** Nodes that kept something of the image, though nothing used it any more. */
  readonly left: ReadonlyArray<string>
}

/** A schedule takes a few seconds; no wait of a mirror or a client is as long as this. */
const limit = "3 minutes"
const clearAgain = { schedule: Repetition.spaced("250 millis"), times: 40 }

/** Fails with a `TimeoutError` if the schedule hangs. */
export const run = Effect.fnUntraced(function*(cluster: Cluster, schedule: Schedule) {
  const { names, nodes, upstream } = cluster
  const image = yield* upstream.push(schedule.seed, schedule.layerSizes)
  const name = `${upstream.name}/team/app:v${schedule.seed}`
  const before = yield* upstream.counts
  const time = Date.now()
  const begun = performance.now()
  const requests = new Requests(names, time)
  const pullers = nodes.map((node, index) =>
    new Puller({ node, image, name, start: schedule.starts[index] ?? { at: 0, client: "ctr" } })
  )
  const happened: Array<Happening.Happened> = []
  const happen = Effect.fnUntraced(function*(event: Event, node: HerdNode, puller: Puller) {
    const { kind, pause } = event
    yield* Effect.sleep(Math.max(0, event.at - 1000 * since(begun)))
    const seconds = since(begun)
    const isInTime = kind === "pull interrupted" ? puller.isPulling : pullers.some(({ isPulling }) => isPulling)
    const code = yield* Happening.happen(event, { ...cluster, node, puller, requests })
    happened.push({
      kind,
      node: node.name,
      seconds,
      isInTime,
      frozen: kind === "mirror frozen" ? pause / 1000 : 0,
      code
    })
  })
  // Events of one node wait for each other.
  const happening = Effect.forEach(pullers, (puller, index) =>
    Effect.forEach(
      schedule.events.filter(({ node }) => node === index),
      (event) => happen(event, puller.node, puller),
      { discard: true }
    ), { concurrency: "unbounded", discard: true })
  const pulling = Effect.forEach(pullers, ({ run }) => run, { concurrency: "unbounded" })
  const [pulls] = yield* Effect.timeout(Effect.all([pulling, happening], { concurrency: "unbounded" }), limit)
  const after = yield* upstream.counts
  yield* Effect.forEach(nodes, (node) => requests.read(node), { discard: true })
  const { taken } = requests
  const forgetful = new Set(pullers.filter(({ mayHaveLost }) => mayHaveLost).map(({ node }) => node.name))
  const left = yield* Effect.filter(nodes, (node) => keeps(node, image), { concurrency: "unbounded" })
  yield* upstream.clear
  return {
    schedule,
    time,
    seconds: since(begun),
    pulls,
    happened,
    requests: requests.all,
    rings: Sources.rings(taken, forgetful),
    copies: (after.blobBytes - before.blobBytes) / image.bytes,
    copiesOf: Object.fromEntries(nodes.map(({ address, name }) => {
      const bytes = (after.byAddress[address] ?? 0) - (before.byAddress[address] ?? 0)
      return [name, bytes / image.bytes]
    })),
    shared: taken.reduce((sum, { end, start }) => sum + end - start, 0) / image.bytes,
    left: left.map(({ name }) => name)
  } satisfies Ran
})

/** Removes an image; true if the node still has something of it, or of any download, after ten seconds. */
const keeps = (node: HerdNode, image: Parameters<HerdNode["received"]>[0]) =>
  node.clear.pipe(
    Effect.andThen(Effect.promise(() => Promise.all([node.received(image), node.downloads()]))),
    Effect.filterOrFail(([bytes, downloads]) => bytes + downloads === 0),
    Effect.retry(clearAgain),
    Effect.isFailure
  )
