/** Finds the zone of this node. */
import { Duration, Effect, Option } from "effect"
import type { RegistrySettings } from "../settings/RegistrySettings.ts"

const label = "topology.kubernetes.io/zone"
/** The mirror starts without a zone rather than late. */
const deadline = Duration.seconds(2)

/** The zone that the settings name, or else the node's label where the mirror may read its node; undefined if neither is there. */
export const find = Effect.fn("NodeZone.find")(function*(
  { kubeconfigPath: kubeconfig, nodeName: node, nodeReadinessTaint, zone }: Pick<
    RegistrySettings,
    "kubeconfigPath" | "nodeName" | "nodeReadinessTaint" | "zone"
  >
): Effect.fn.Return<string | undefined> {
  if (zone !== "") return zone
  // The right to read nodes comes with the right to take the taint off.
  if (nodeReadinessTaint === "") return undefined
  const NodeLabel = yield* Effect.promise(() => import("@spegel-ts/kubernetes/NodeLabel"))
  return yield* NodeLabel.read({ kubeconfig, node, label, deadline, environment: process.env }).pipe(
    Effect.map(Option.getOrUndefined),
    Effect.catch(({ message }) =>
      Effect.as(Effect.logInfo(`the zone of this node is not known: ${message}`), undefined)
    )
  )
})
