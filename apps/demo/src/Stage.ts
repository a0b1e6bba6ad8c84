/** What the acts of the demo have in common: the registry, the nodes, the screen, and how a node pulls. */
import * as PullClient from "@spegel-ts/testing/content/PullClient"
import type { RandomImage } from "@spegel-ts/testing/content/RandomImage"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import type { Counts, LayoutRegistry } from "@spegel-ts/testing/registry/LayoutRegistry"
import { Effect, Schedule } from "effect"
import type { DemoNode } from "./DemoCluster.ts"
import * as DiscardingWriter from "./DiscardingWriter.ts"
import type * as Screen from "./Screen.ts"

export interface Stage {
  readonly upstream: LayoutRegistry
  readonly nodes: readonly [DemoNode, DemoNode, DemoNode, ...ReadonlyArray<DemoNode>]
  readonly screen: Screen.Screen
}

/** One node's pull of an image: bytes that its client was sent, by where they came from. */
export interface Pulled {
  readonly upstream: number
  readonly peers: number
  readonly millis: number
}

export interface PullOptions {
  readonly node: DemoNode
  readonly image: RandomImage
  /** `none`: straight from upstream; nothing is kept, so that the client costs as little as it can. */
  readonly through: "mirror" | "none"
  readonly onProgress: (progress: PullClient.Progress) => Effect.Effect<void>
}

/** Pulls an image for a node. */
export const pull = Effect.fnUntraced(function*(
  { upstream }: Pick<Stage, "upstream">,
  { image, node, onProgress, through }: PullOptions
) {
  const started = performance.now()
  const objects = yield* PullClient.pull({
    writer: through === "mirror" ? node.writer : DiscardingWriter.make(),
    mirror: through === "mirror" ? node.registry : undefined,
    headers: node.headers,
    upstream: `http://${upstream.name}`,
    localAddress: node.address,
    reference: image.reference,
    tag: image.reference.tag ?? "latest",
    onProgress
  })
  const sum = (host: PullClient.Host) => objects.reduce((total, { bytes }) => total + bytes[host], 0)
  return { upstream: sum("upstream"), peers: sum("mirror"), millis: performance.now() - started } satisfies Pulled
})

/** Waits until a node finds all of an image at its peers. In a cluster, pulls are further apart than here. */
export const untilFound = (node: DemoNode, image: RandomImage) =>
  Lookup.untilFound(node.registry, image.reference, Lookup.pathsOf(image), node.headers).pipe(
    Effect.mapError((missing) => new Error(`${node.name} does not find it at its peers: ${missing}`)),
    Effect.orDie
  )

/** Waits for what happens in the background; gives what it came to within five seconds. */
export const settled = <E>(condition: Effect.Effect<boolean, E>) =>
  Effect.repeat(condition, { schedule: Schedule.spaced("50 millis"), times: 100, until: (holds) => holds })

const sentBy = ({ blobBytes, manifestBytes }: Counts) => blobBytes + manifestBytes

/** Does something, and gives the bytes that upstream says it sent meanwhile. */
export const counted = Effect.fnUntraced(
  function*<A, E, R>({ upstream }: Pick<Stage, "upstream">, act: Effect.Effect<A, E, R>) {
    const before = yield* upstream.counts
    const result = yield* act
    return { result, upstreamBytes: sentBy(yield* upstream.counts) - sentBy(before) }
  }
)
