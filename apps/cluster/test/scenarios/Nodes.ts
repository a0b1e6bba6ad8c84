/** Nodes that come and go. */
import { Effect } from "effect"
import { eventually, type Node } from "../Cluster.ts"
import type { Installation } from "../Installation.ts"
import * as Pods from "../Pods.ts"
import * as Steps from "../Steps.ts"
import * as Upstream from "../Upstream.ts"

/** A drained node keeps its mirror, which is a DaemonSet's, and goes on serving the others. */
export const drain = Effect.fnUntraced(function*({ cluster, newImage, nodes: [drained, other] }: Installation) {
  if (drained === undefined || other === undefined) return ""
  const image = yield* newImage()
  yield* Pods.pull(cluster, drained, image)
  yield* cluster.kubectl(["drain", drained.nodeName, "--ignore-daemonsets", "--delete-emptydir-data", "--force"])
  const [pull, traffic] = yield* cluster.upstream.during(Pods.pull(cluster, other, image)).pipe(
    Effect.ensuring(Effect.ignore(cluster.kubectl(["uncordon", drained.nodeName])))
  )
  const bytes = Upstream.bytesOf(traffic, [other])
  yield* Steps.promise(bytes === 0, `upstream sent ${bytes} bytes though the drained node has all`)
  return `${pull.node} ${pull.seconds.toFixed(2)} s`
})

/** The only holder of an image loses its power: the next pull goes to upstream, and takes little longer for it. */
export const lost = Effect.fnUntraced(function*(installation: Installation) {
  const { cluster, newImage, nodes: [other] } = installation
  if (other === undefined) return ""
  const plain = yield* Effect.flatMap(newImage(), (image) => Pods.pull(cluster, other, image))
  const holder = yield* cluster.addNode({ name: "lost", containerd: "2.1" })
  yield* cluster.nodeReady(holder)
  yield* installation.mirrorReady(holder)
  const image = yield* newImage()
  yield* Pods.pull(cluster, holder, image)
  yield* holder.kill
  const pull = yield* Pods.pull(cluster, other, image)
  yield* cluster.kubectl(["delete", "node", holder.nodeName])
  const figures = `${pull.seconds.toFixed(2)} s, and ${plain.seconds.toFixed(2)} s where nobody ever had it`
  yield* Steps.promise(pull.failures.length === 0 && pull.seconds <= plain.seconds + 3, figures)
  return figures
}, Effect.scoped)

const taint = "spegel.dev/not-ready"

/** A node begins with a taint and an empty containerd; its mirror is ready, takes the taint off, and gets an image from a peer. */
const joins = Effect.fnUntraced(function*(installation: Installation, containerd: Node["containerd"]) {
  const { cluster, newImage, nodes: [holder] } = installation
  if (holder === undefined) return ""
  const image = yield* newImage()
  yield* Pods.pull(cluster, holder, image)
  const node = yield* cluster.addNode({
    name: `fresh-${containerd}`,
    containerd,
    kubeletFlags: [`--register-with-taints=${taint}=:NoSchedule`]
  })
  const registered = Date.parse(
    yield* cluster.kubectl(["get", "node", node.nodeName, "-o", "jsonpath={.metadata.creationTimestamp}"])
  )
  const sinceRegistered = Effect.sync(() => (Date.now() - registered) / 1000)
  yield* eventually(
    "the taint is gone",
    "60 seconds",
    Effect.flatMap(
      cluster.kubectl(["get", "node", node.nodeName, "-o", "jsonpath={.spec.taints[*].key}"]),
      (keys) => Steps.promise(!keys.includes(taint), `the node has the taints ${keys}`)
    )
  )
  const ready = yield* sinceRegistered
  const [pull, traffic] = yield* cluster.upstream.during(Pods.pull(cluster, node, image))
  const served = yield* sinceRegistered
  const bytes = Upstream.bytesOf(traffic, [node])
  yield* node.kill
  yield* cluster.kubectl(["delete", "node", node.nodeName])
  const figures = `containerd ${containerd}: ready after ${ready.toFixed(1)} s, a pod runs after ${served.toFixed(1)} s`
  yield* Steps.promise(pull.failures.length === 0, `the pull failed: ${pull.failures.join("; ")}; ${figures}`)
  yield* Steps.promise(bytes === 0, `upstream sent ${bytes} bytes though a peer has all; ${figures}`)
  yield* Steps.promise(served < 30, figures)
  return figures
}, Effect.scoped)

/** Nodes that come, as an autoscaler adds them. */
export const fresh = Effect.fnUntraced(function*(installation: Installation) {
  yield* installation.apply(["nodeReadiness.enabled=true", `nodeReadiness.taint=${taint}`])
  const figures = yield* Effect.forEach(
    ["1.6", "1.7", "2.1"] as const,
    (containerd) => joins(installation, containerd)
  )
  return figures.join("; ")
})
