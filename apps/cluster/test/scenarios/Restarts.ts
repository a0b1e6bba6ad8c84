/** Mirrors are restarted one after another, again and again, while kubelets pull. */
import { Effect, Fiber } from "effect"
import type { Installation } from "../Installation.ts"
import * as Pods from "../Pods.ts"
import * as Steps from "../Steps.ts"

const layerSize = 8 * 2 ** 20
const restarts = 3
/** A pull that waits for a mirror that is gone takes 30 s more (containerd before 2.1). */
const maxAddedSeconds = 3
const maxUpstreamShare = 0.05

/** Pulls new images until `busy` is over: each on the first node, and one round later on the others. */
const pullWhile = Effect.fnUntraced(function*(installation: Installation, busy: () => boolean) {
  const { cluster, newImage, nodes: [first, ...others] } = installation
  const leading: Array<Pods.Pull> = []
  const following: Array<Pods.Pull> = []
  if (first === undefined) return { pulls: [], share: 0 }
  let before: string | undefined
  const [, traffic] = yield* cluster.upstream.during(Effect.gen(function*() {
    while (busy()) {
      const image = yield* newImage([layerSize])
      const previous = before
      const followers = previous === undefined
        ? []
        : others.map((node) => Effect.map(Pods.pull(cluster, node, previous), (pull) => following.push(pull)))
      const leader = Effect.map(Pods.pull(cluster, first, image), (pull) => leading.push(pull))
      yield* Effect.all([leader, ...followers], { concurrency: "unbounded" })
      before = image
    }
  }))
  const share = cluster.upstream.bytesOf(traffic, others) / Math.max(1, following.length * layerSize)
  return { pulls: [...leading, ...following], share }
})

const longest = (pulls: ReadonlyArray<Pods.Pull>) => Math.max(...pulls.map(({ seconds }) => seconds))

export const restartsUnderPulls = Effect.fnUntraced(function*(installation: Installation) {
  let rounds = 0
  const quiet = yield* pullWhile(installation, () => rounds++ < 8)
  let restarting = true
  const restarted = yield* Effect.repeat(installation.restart, { times: restarts - 1 }).pipe(
    Effect.ensuring(Effect.sync(() => restarting = false)),
    Effect.forkChild
  )
  const busy = yield* pullWhile(installation, () => restarting)
  yield* Fiber.join(restarted)
  const failures = [...quiet.pulls, ...busy.pulls].flatMap(({ failures }) => failures)
  const added = longest(busy.pulls) - longest(quiet.pulls)
  const figures = `${busy.pulls.length} pulls, the longest ${longest(busy.pulls).toFixed(2)} s (without restarts ${
    longest(quiet.pulls).toFixed(2)
  } s), ${(busy.share * 100).toFixed(1)} % from upstream`
  yield* Steps.promise(failures.length === 0, `pulls failed: ${failures.join("; ")}; ${figures}`)
  yield* Steps.promise(added <= maxAddedSeconds, `a pull took ${added.toFixed(2)} s more; ${figures}`)
  yield* Steps.promise(busy.share < maxUpstreamShare, figures)
  return figures
})
