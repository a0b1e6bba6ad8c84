/** Mirrors are restarted one after another, while kubelets pull. */
import { Effect, Fiber } from "effect"
import { fileURLToPath } from "node:url"
import type { Installation } from "../Installation.ts"
import * as Pods from "../Pods.ts"
import * as Steps from "../Steps.ts"

const layerSize = 8 * 2 ** 20
const restarts = 3

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

/** Does something to the mirrors while images are pulled, and before that pulls without it. */
const underPulls = Effect.fnUntraced(function*<E, R>(
  installation: Installation,
  { change, maxAddedSeconds, maxUpstreamShare }: {
    readonly change: Effect.Effect<unknown, E, R>
    readonly maxAddedSeconds: number
    readonly maxUpstreamShare: number
  }
) {
  let rounds = 0
  const quiet = yield* pullWhile(installation, () => rounds++ < 8)
  let changing = true
  const changed = yield* change.pipe(
    Effect.ensuring(Effect.sync(() => changing = false)),
    Effect.forkChild
  )
  const busy = yield* pullWhile(installation, () => changing)
  yield* Fiber.join(changed)
  const failures = [...quiet.pulls, ...busy.pulls].flatMap(({ failures }) => failures)
  const added = longest(busy.pulls) - longest(quiet.pulls)
  const figures = `${busy.pulls.length} pulls, the longest ${longest(busy.pulls).toFixed(2)} s (without ${
    longest(quiet.pulls).toFixed(2)
  } s), ${(busy.share * 100).toFixed(1)} % from upstream`
  yield* Steps.promise(failures.length === 0, `pulls failed: ${failures.join("; ")}; ${figures}`)
  yield* Steps.promise(added <= maxAddedSeconds, `a pull took ${added.toFixed(2)} s more; ${figures}`)
  yield* Steps.promise(busy.share < maxUpstreamShare, figures)
  return figures
})

/** A pull that waits for a mirror that is gone takes 30 s more (containerd before 2.1). */
export const restartsUnderPulls = (installation: Installation) =>
  underPulls(installation, {
    change: Effect.repeat(installation.restart, { times: restarts - 1 }),
    maxAddedSeconds: 3,
    maxUpstreamShare: 0.05
  })

/** The chart of the release before. */
const before = fileURLToPath(new URL("../../fixtures/spegel-0.1.0.tgz", import.meta.url))

/**
 * From the chart before to this one, and back. The mirrors of that one close their port at once, so that a pull may wait for
 * 30 s.
 */
export const upgradeUnderPulls = Effect.fnUntraced(function*(installation: Installation) {
  const { apply, cluster, namespace, rolledOut } = installation
  yield* apply([], before)
  const rollback = Effect.andThen(cluster.helm(["rollback", "spegel", "-n", namespace]), rolledOut)
  return yield* underPulls(installation, {
    change: Effect.all([apply(), rollback, apply()]),
    maxAddedSeconds: 35,
    maxUpstreamShare: 0.2
  })
})
