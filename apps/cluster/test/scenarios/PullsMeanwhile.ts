/** Kubelets pull while something is done to the mirrors; their pulls are compared with those in peace. */
import { Effect, Fiber } from "effect"
import type { Installation } from "../Installation.ts"
import * as Pods from "../Pods.ts"
import * as Steps from "../Steps.ts"
import * as Upstream from "../Upstream.ts"

const layerSize = 8 * 2 ** 20
/** Seconds that a pull may take longer because of restarts. A mirror that is gone costs 30 s (containerd before 2.1). */
const maxAddedSeconds = 3
/** Share of an image's bytes that may come from upstream although a peer holds it. */
const maxUpstreamShare = 0.05

export interface Measured {
  readonly pulls: ReadonlyArray<Pods.Pull>
  /** The pulls of images that another node had. */
  readonly following: ReadonlyArray<Pods.Pull>
  readonly traffic: Upstream.Traffic
}

/** Pulls new images until `busy` is over, each on a node and one round later on all others. The nodes take turns. */
const pullWhile = Effect.fnUntraced(function*({ cluster, newImage, nodes }: Installation, busy: () => boolean) {
  const pulls: Array<Pods.Pull> = []
  const following: Array<Pods.Pull> = []
  let before: { readonly image: string; readonly by: unknown } | undefined
  const [, traffic] = yield* cluster.upstream.during(Effect.gen(function*() {
    for (let round = 0; busy(); round++) {
      const leader = nodes[round % nodes.length]
      if (leader === undefined) return
      const image = yield* newImage([layerSize])
      const pull = (node: typeof leader, image: string) =>
        Effect.tap(Pods.pull(cluster, node, image), (pull) => Effect.sync(() => pulls.push(pull)))
      const previous = before
      const followers = previous === undefined ?
        [] :
        nodes.filter((node) => node !== previous.by).map((node) =>
          Effect.map(pull(node, previous.image), (pull) => following.push(pull))
        )
      yield* Effect.all([pull(leader, image), ...followers], { concurrency: "unbounded", discard: true })
      before = { image, by: leader }
    }
  }))
  return { pulls, following, traffic } satisfies Measured
})

/** Pulls while nothing else happens. */
export const pullInPeace = (installation: Installation) => {
  let rounds = 0
  return pullWhile(installation, () => rounds++ < 9)
}

/** Pulls while something is done to the mirrors. */
export const pullDuring = Effect.fnUntraced(
  function*<E, R>(installation: Installation, change: Effect.Effect<unknown, E, R>) {
    let changing = true
    const changed = yield* change.pipe(
      Effect.ensuring(Effect.sync(() => changing = false)),
      Effect.forkChild
    )
    const measured = yield* pullWhile(installation, () => changing)
    yield* Fiber.join(changed)
    return measured
  }
)

const longest = (pulls: ReadonlyArray<Pods.Pull>) => Math.max(0, ...pulls.map(({ seconds }) => seconds))

/** Compares one node's pulls during the change with those in peace. */
const compare = (node: Installation["nodes"][number], quiet: Measured, busy: Measured) => {
  const of = ({ pulls }: Measured) => pulls.filter((pull) => pull.node === node.nodeName)
  const followed = busy.following.filter((pull) => pull.node === node.nodeName)
  const fromUpstream = followed.reduce(
    (sum, { image }) => sum + Upstream.bytesOf(busy.traffic, [node], image),
    0
  )
  const added = longest(of(busy)) - longest(of(quiet))
  const share = fromUpstream / Math.max(1, followed.length * layerSize)
  return {
    added,
    share,
    text: `containerd ${node.containerd}: ${of(busy).length} pulls, the longest ${
      longest(of(busy)).toFixed(2)
    } s (in peace ${longest(of(quiet)).toFixed(2)} s), ${(share * 100).toFixed(1)} % from upstream`
  }
}

export interface Bounds {
  readonly maxAddedSeconds: number
  readonly maxUpstreamShare: number
}

/** What may happen to pulls while mirrors of this release change. */
export const usual: Bounds = { maxAddedSeconds, maxUpstreamShare }

/** No pull failed, and each node's are within bounds. Gives the figures. */
export const judge = Effect.fnUntraced(
  function*({ nodes }: Installation, quiet: Measured, busy: Measured, bounds: Bounds) {
    const compared = nodes.map((node) => compare(node, quiet, busy))
    const figures = compared.map(({ text }) => text).join("; ")
    const failures = [...quiet.pulls, ...busy.pulls].flatMap(({ failures }) => failures)
    yield* Steps.promise(failures.length === 0, `pulls failed: ${failures.join("; ")}; ${figures}`)
    yield* Steps.promise(busy.following.length >= nodes.length, `too few pulls: ${figures}`)
    for (const node of nodes) {
      yield* Steps.promise(
        Upstream.bytesOf(quiet.traffic, [node]) > 0,
        `${node.nodeName} was first, and upstream sent nothing`
      )
    }
    for (const { added, share } of compared) {
      yield* Steps.promise(added <= bounds.maxAddedSeconds, `a pull took ${added.toFixed(2)} s more; ${figures}`)
      yield* Steps.promise(share < bounds.maxUpstreamShare, `upstream sent what a peer had; ${figures}`)
    }
    return figures
  }
)
