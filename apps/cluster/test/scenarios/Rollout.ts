/** A DaemonSet rolls out an image that no node has: every kubelet pulls it in the same moment. */
import { Effect } from "effect"
import { eventually } from "../Cluster.ts"
import type { Installation } from "../Installation.ts"
import * as Steps from "../Steps.ts"
import * as Upstream from "../Upstream.ts"

const mebibyte = 1024 * 1024
const layerSizes = [16, 16, 16].map((size) => size * mebibyte)
/**
 * What upstream may send, as a multiple of the layers: less than to two nodes. The figure is in the table; it is 1.00 unless the machine,
 * which runs the whole cluster, stands still for a second.
 */
const maxCopies = 1.7

const daemonSet = (name: string, image: string) => ({
  apiVersion: "apps/v1",
  kind: "DaemonSet",
  metadata: { name, namespace: "default" },
  spec: {
    selector: { matchLabels: { app: name } },
    template: {
      metadata: { labels: { app: name } },
      spec: {
        terminationGracePeriodSeconds: 0,
        tolerations: [{ operator: "Exists" }],
        containers: [{ name: "main", image }]
      }
    }
  }
})

export const everywhereAtOnce = Effect.fnUntraced(function*({ cluster, newImage, nodes }: Installation) {
  const image = yield* newImage(layerSizes)
  const name = "everywhere"
  const [, traffic] = yield* cluster.upstream.during(Effect.andThen(
    cluster.apply(daemonSet(name, image)),
    eventually(
      `${name} runs on each node`,
      "90 seconds",
      cluster.kubectl(["rollout", "status", `daemonset/${name}`, "-n", "default", "--timeout=5s"])
    )
  ))
  yield* cluster.kubectl(["delete", "daemonset", name, "-n", "default", "--wait=false"])
  const bytes = Upstream.bytesOf(traffic, nodes, image)
  const copies = bytes / layerSizes.reduce((sum, size) => sum + size, 0)
  yield* Steps.promise(copies >= 0.9, `upstream sent ${bytes} bytes: somebody had the image`)
  yield* Steps.promise(copies <= maxCopies, `upstream sent the image ${copies.toFixed(2)} times`)
  return `upstream sent ${copies.toFixed(2)} times the image to ${nodes.length} nodes`
})
