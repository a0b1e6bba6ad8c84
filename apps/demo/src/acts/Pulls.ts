/** All nodes pull an image: one after another or all at once, with the mirror or straight from upstream. */
import type { RandomImage } from "@spegel-ts/testing/content/RandomImage"
import { Effect } from "effect"
import * as Stage from "../Stage.ts"

export interface PullsOptions {
  readonly image: RandomImage
  readonly through: Stage.PullOptions["through"]
  readonly order: "one after another" | "at once"
  /** Whether bars show it. */
  readonly isShown: boolean
}

/** Pulls of all nodes; bytes. */
export interface Pulls {
  /** The time of all pulls, one after another, or until the last one ended. */
  readonly millis: number
  /** What upstream says it sent. */
  readonly upstreamBytes: number
  /** What the nodes' clients say they were sent. */
  readonly fromUpstream: number
  readonly fromPeers: number
}

export const run = Effect.fnUntraced(function*(stage: Stage.Stage, { image, isShown, order, through }: PullsOptions) {
  const { nodes, screen } = stage
  const bars = isShown ? screen.bars(nodes.map(({ name }) => name), image.bytes) : undefined
  const pull = Effect.fnUntraced(function*(node: typeof nodes[number], index: number) {
    if (order === "one after another" && through === "mirror" && index > 0) yield* Stage.untilFound(node, image)
    const pulled = yield* Stage.pull(stage, {
      node,
      image,
      through,
      onProgress: ({ bytes, host }) =>
        bars?.grow(node.name, host === "mirror" ? "peers" : "upstream", bytes) ?? Effect.void
    })
    if (bars !== undefined) yield* bars.finish(node.name, pulled.millis)
    return pulled
  })
  const { result: pulls, upstreamBytes } = yield* Stage.counted(
    stage,
    Effect.forEach(nodes, pull, { concurrency: order === "at once" ? "unbounded" : 1 })
  )
  const sum = (of: (pulled: Stage.Pulled) => number) => pulls.reduce((total, pulled) => total + of(pulled), 0)
  return {
    millis: order === "at once" ? Math.max(...pulls.map(({ millis }) => millis)) : sum(({ millis }) => millis),
    upstreamBytes,
    fromUpstream: sum(({ upstream }) => upstream),
    fromPeers: sum(({ peers }) => peers)
  } satisfies Pulls
})
