/** Rounds of pulls, one after another: in each one all nodes pull an image that none of them has. */
import type { RandomImage } from "@spegel-ts/testing/content/RandomImage"
import { Effect, Random } from "effect"
import type { HerdNode } from "../herd/HerdNode.ts"
import type { HerdUpstream } from "../herd/HerdUpstream.ts"
import type { Mirrors } from "./Mirrors.ts"

const mebibyte = 1024 ** 2
/** Above and below the size to which a mirror verifies a layer before it passes it on. */
const layerSizes = [1, 8, 16].map((size) => size * mebibyte)
/** Seconds over which the starts of a round are spread, round after round. */
const spreads = [0, 1, 3]

/** A pull that failed, of a node that was there. */
export interface Failure {
  readonly node: string
  readonly image: string
  readonly reason: string
}

export interface Totals {
  rounds: number
  pulls: number
  /** Bytes of the images that were pulled. */
  pulledBytes: number
  readonly failures: Array<Failure>
}

export interface RoundsOptions {
  readonly mirrors: Mirrors
  readonly upstream: HerdUpstream
  /** Changed with each pull. */
  readonly totals: Totals
  readonly isOver: () => boolean
}

/** Pulls until it is over, and to the end of the round. */
export const run = (options: RoundsOptions) => Effect.repeat(round(options), { until: () => options.isOver() })

const round = Effect.fnUntraced(function*({ mirrors, totals, upstream }: RoundsOptions) {
  const seed = ++totals.rounds
  const image = yield* upstream.push(seed, layerSizes)
  const name = `${upstream.name}/team/app:v${seed}`
  const nodes = yield* Random.shuffle(mirrors.nodes.filter((node) => !mirrors.isLost(node)))
  const spread = spreads[seed % spreads.length] ?? 0
  yield* Effect.forEach(nodes, (node, index) =>
    Effect.sleep((1000 * spread * index) / nodes.length).pipe(
      Effect.andThen(pull(node, name, image, mirrors, totals))
    ), { concurrency: "unbounded", discard: true })
  yield* Effect.forEach(nodes, (node) => Effect.ignore(node.clear), { concurrency: "unbounded", discard: true })
  yield* upstream.clear
})

/** Ends when the node is lost, too: nobody waits for its pull. */
const pull = Effect.fnUntraced(
  function*(node: HerdNode, name: string, image: RandomImage, mirrors: Mirrors, totals: Totals) {
    const lost = Effect.repeat(Effect.sleep("100 millis"), { until: () => mirrors.isLost(node) })
    const reason = yield* Effect.raceFirst(
      Effect.match(node.pull(name), { onFailure: ({ message }) => message, onSuccess: () => undefined }),
      Effect.as(lost, undefined)
    )
    if (mirrors.isLost(node)) return
    totals.pulls++
    if (reason === undefined) totals.pulledBytes += image.bytes
    else totals.failures.push({ node: node.name, image: name, reason })
  }
)
