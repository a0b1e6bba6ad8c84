/** Mirrors are restarted one after another, while kubelets pull. */
import { Console, Effect } from "effect"
import { fileURLToPath } from "node:url"
import { type Installation, tagBefore } from "../Installation.ts"
import * as Steps from "../Steps.ts"
import { type Bounds, judge, pullDuring, pullInPeace, usual } from "./PullsMeanwhile.ts"

const restarts = 3

export const restartsUnderPulls = Effect.fnUntraced(function*(installation: Installation) {
  const quiet = yield* pullInPeace(installation)
  const busy = yield* pullDuring(installation, Effect.repeat(installation.restart, { times: restarts - 1 }))
  return yield* judge(installation, quiet, busy, usual)
})

/** The chart of the release before. */
const before = fileURLToPath(new URL("../../fixtures/spegel-0.1.0.tgz", import.meta.url))

/**
 * Pods of that release say goodbye and close their port at once when they stop, and its chart stops a mirror before it starts the
 * next one: what only that node holds may come from upstream, and a pull may wait for a port that is gone for 30 s.
 */
const whereOldStop: Bounds = { maxAddedSeconds: 35, maxUpstreamShare: Infinity }
const whereOldStart: Bounds = { ...usual, maxUpstreamShare: Infinity }

/** From the chart before, whose mirrors have no key, to this one, back, and again; then to mirrors that require proofs, and back. */
export const upgradeUnderPulls = Effect.fnUntraced(function*(installation: Installation) {
  const { apply, cluster, namespace, rolledOut } = installation
  yield* apply([`image.tag=${tagBefore}`], before)
  const quiet = yield* pullInPeace(installation)
  const phases = [
    { name: "upgrade", change: apply(), bounds: whereOldStop },
    {
      name: "rollback",
      change: Effect.andThen(cluster.helm(["rollback", "spegel", "-n", namespace]), rolledOut),
      bounds: whereOldStart
    },
    { name: "upgrade again", change: apply(), bounds: whereOldStop },
    { name: "require proofs", change: apply(["peerAuth=require"]), bounds: usual },
    { name: "prefer proofs again", change: apply(["peerAuth=prefer"]), bounds: usual }
  ]
  const figures = yield* Effect.forEach(phases, ({ bounds, change, name }) =>
    pullDuring(installation, change).pipe(
      Effect.flatMap((busy) => judge(installation, quiet, busy, bounds)),
      Effect.map((figures) => `${name}: ${figures}`),
      Effect.mapError((error) => new Steps.NotAsPromised({ reason: `${name}: ${error.message}` })),
      Effect.tap(Console.log)
    ))
  return figures.join(". ")
})
