/** Three nodes with real containerd daemons, which have pulled an image and are pulling another one from a slow registry. */
import { eventually } from "@spegel-ts/testing/Eventually"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { Effect } from "effect"
import * as ClusterKeys from "../e2e/trust/ClusterKeys.ts"
import * as Metrics from "../e2e/trust/Metrics.ts"

const mebibyte = 1024 * 1024
const nodeCount = 3

export const start = Effect.gen(function*() {
  const upstream = yield* Upstream.start
  const ports = yield* MirrorPorts.free
  const key = yield* ClusterKeys.make
  const nodes = yield* Effect.forEach(
    Array.from({ length: nodeCount }, (_, index) => index + 1),
    (index) => {
      const trust = [key.flag, `--node-name=node-${index}`]
      return Node.start(index, ports, upstream.host, {
        registry: [...trust, `--zone=zone-${index % 2 === 1 ? "a" : "b"}`, "--debug-profile"],
        configuration: trust
      })
    }
  )
  for (const node of nodes) {
    const members = Metrics.sum(node, "spegel_peer_auth_members", `proved="true"`)
    yield* eventually(Effect.map(members, (count) => count === nodeCount - 1))
  }
  const old = yield* upstream.push({ tag: "1.0", layers: 3, layerSize: 6 * mebibyte, seed: 1 })
  yield* Effect.forEach(nodes, (node) => node.pull(old.name))
  const next = yield* upstream.push({ tag: "2.0", layers: 2, layerSize: 48 * mebibyte, seed: 2 })
  return {
    upstream,
    nodes,
    /** An image that all nodes have. */
    held: old.name,
    heldDigest: old.objects.find(({ kind }) => kind === "manifest")?.descriptor.digest ?? "",
    /** One that nobody has yet. */
    next: next.name,
    /** All nodes pull it at once; upstream sends slowly. */
    pullNext: Effect.suspend(() => {
      upstream.state.speed = mebibyte / 2
      return Effect.forEach(nodes, (node) => node.pull(next.name), { concurrency: "unbounded", discard: true })
    }),
    /** What is being pulled ends soon. */
    hurry: Effect.sync(() => void (upstream.state.speed = Infinity))
  }
})

export type Cluster = Effect.Success<typeof start>
