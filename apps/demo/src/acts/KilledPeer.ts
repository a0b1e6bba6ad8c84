/** Two nodes have a layer, a third one pulls it, and the peer that sends it is killed in the middle. */
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import { Effect, Option } from "effect"
import type { DemoNode } from "../DemoCluster.ts"
import * as NodeFacts from "../NodeFacts.ts"
import * as Stage from "../Stage.ts"

/** Sizes and offsets in bytes. */
export interface KilledPeer {
  readonly node: string
  readonly killed: string
  readonly layerBytes: number
  /** What the killed peer had sent. */
  readonly fromKilled: number
  /** The peer that went on, and the byte at which it did. */
  readonly successor: string
  readonly resumedAt: number
  readonly fromSuccessor: number
  readonly upstreamBytes: number
  readonly millis: number
}

/** More than the sockets between two nodes can hold: the layer is still on its way when its sender is killed. */
const layerBytes = 64 * 1024 * 1024
/** The part of the layer after which it happens. */
const killedAfter = 0.25

const isSending = ({ metrics }: DemoNode) =>
  Effect.map(NodeFacts.metric(metrics, "spegel_uploads_inflight"), (uploads) => uploads > 0)

export const run = Effect.fnUntraced(function*(stage: Stage.Stage, seed: number) {
  const [one, other, node] = stage.nodes
  const holders = [one, other]
  const reference = { registry: stage.upstream.name, repository: "team/killed", tag: "v1" }
  // Upstream does not have it.
  const [image] = yield* Effect.forEach(
    holders,
    ({ writer }) => RandomImage.write({ writer, reference, layerSizes: [layerBytes], seed })
  )
  const layer = image?.objects.find(({ kind }) => kind === "layer 1")?.descriptor
  if (image === undefined || layer === undefined) return yield* Effect.die(new Error("an image without a layer"))
  yield* Stage.untilFound(node, image)

  let killed: DemoNode | undefined
  const kill = Effect.gen(function*() {
    // The layer waits meanwhile, since its client reads no further.
    yield* Stage.settled(Effect.gen(function*() {
      const [sender] = yield* Effect.filter(holders, isSending)
      killed = sender
      return sender !== undefined
    }))
    if (killed !== undefined) yield* killed.kill
  }).pipe(Effect.orDie)
  const { result: { millis }, upstreamBytes } = yield* Stage.counted(
    stage,
    Stage.pull(stage, {
      node,
      image,
      through: "mirror",
      onProgress: ({ kind, written }) =>
        kind === "layer 1" && killed === undefined && written > killedAfter * layerBytes ? kill : Effect.void
    })
  )

  const [request] = yield* NodeFacts.pullsOf(node.metrics, layer.digest)
  const attempts = request?.attempts.filter(({ bytes }) => bytes > 0) ?? []
  const first = attempts.find(({ address }) => killed !== undefined && address.includes(killed.address))
  const next = attempts.find(({ outcome }) => outcome === "served")
  const successor = holders.find(({ address }) => next?.address.includes(address))
  if (killed === undefined || first === undefined || next === undefined || successor === undefined) return Option.none()
  return Option.some(
    {
      node: node.name,
      killed: killed.name,
      layerBytes: layer.size,
      fromKilled: first.bytes,
      successor: successor.name,
      resumedAt: next.start,
      fromSuccessor: next.bytes,
      upstreamBytes,
      millis
    } satisfies KilledPeer
  )
})
