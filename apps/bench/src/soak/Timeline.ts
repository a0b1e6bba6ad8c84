/** What happens to the nodes in the course of a soak, at shares of its duration. */
import { Effect } from "effect"
import type { HerdNode } from "../herd/HerdNode.ts"
import { merge, type Mirrors, partition, type Release } from "./Mirrors.ts"

export interface Event {
  /** When it begins, as a share of the duration. One that is late begins when the one before has ended. */
  readonly at: number
  readonly name: string
  readonly happen: Effect.Effect<unknown, unknown>
}

export interface TimelineOptions {
  readonly mirrors: Mirrors
  readonly flags: ReadonlyArray<string>
  /** Between two nodes of a rolling restart. */
  readonly pauseMillis: number
}

/** A node is lost, and comes back. */
const loss = ({ flags, mirrors }: TimelineOptions, node: HerdNode, at: number, until: number): ReadonlyArray<Event> => [
  { at, name: `${node.name} is lost`, happen: mirrors.lose(node) },
  { at: until, name: `${node.name} is back`, happen: mirrors.bringBack(node, { flags }) }
]

/** The first nodes are cut off from the others, and join them again. */
const split = (
  { mirrors: { nodes } }: TimelineOptions,
  first: number,
  at: number,
  until: number
): ReadonlyArray<Event> => {
  const [one, other] = [nodes.slice(0, first), nodes.slice(first)]
  return [
    { at, name: `partition: ${one.length} nodes and ${other.length}`, happen: partition(one, other) },
    { at: until, name: "merge", happen: merge(one, other) }
  ]
}

/**
 * The mirrors begin as the release before, which has no cluster key. Those of all nodes but the last one live from the second event
 * to the last: long enough to see whether they grow.
 */
export const of = (options: TimelineOptions): ReadonlyArray<Event> => {
  const { flags, mirrors, pauseMillis } = options
  const preferred: Release = { flags: [...flags, "--peer-auth=prefer"] }
  const required: Release = { flags }
  const last = mirrors.nodes.slice(-1)
  return [
    { at: 0.06, name: "rolling upgrade", happen: mirrors.roll(preferred, pauseMillis) },
    { at: 0.13, name: "rolling restart: proofs required", happen: mirrors.roll(required, pauseMillis) },
    ...last.flatMap((node) => loss(options, node, 0.4, 0.45)),
    ...split(options, 2, 0.52, 0.57),
    ...last.flatMap((node) => loss(options, node, 0.64, 0.67)),
    ...split(options, 3, 0.72, 0.76),
    { at: 0.9, name: "rolling restart", happen: mirrors.roll(required, pauseMillis) }
  ]
}

/** Lets the events happen, each when its time has come; `seconds` is the duration. */
export const run = (
  events: ReadonlyArray<Event>,
  seconds: number,
  now: () => number,
  onBegin: (event: Event) => Effect.Effect<void>
) =>
  Effect.forEach(
    events,
    (event) =>
      Effect.suspend(() => Effect.sleep(Math.max(0, 1000 * (event.at * seconds - now())))).pipe(
        Effect.andThen(onBegin(event)),
        Effect.andThen(event.happen)
      ),
    { discard: true }
  )
