/** Nodes whose containerd does not use the mirror, or keeps no layers for peers: their mirrors say so. */
import { Effect } from "effect"
import { eventually, type NodeOptions } from "../Cluster.ts"
import type { Installation } from "../Installation.ts"
import * as Pods from "../Pods.ts"
import * as Steps from "../Steps.ts"

interface Fault {
  readonly node: Omit<NodeOptions, "name">
  /** The line that the log of the node's mirror has once. */
  readonly line: RegExp
}

const unused = /containerd does not use this mirror: [^"]*config_path/
const upgrade = /containerd 2\.1 and later would not use this mirror/
const discards = /containerd discards layers once they are unpacked/

const faults: ReadonlyArray<Fault> = [
  ...(["1.6", "1.7", "2.1"] as const).map((containerd) => ({ node: { containerd, configPath: "" }, line: unused })),
  ...(["1.6", "1.7", "2.1"] as const).map((containerd) => ({
    node: { containerd, configPath: "/etc/containerd/certs.d:/etc/docker/certs.d" },
    // Before 2.1 the first of several is read.
    line: containerd === "2.1" ? unused : upgrade
  })),
  ...(["1.6", "1.7"] as const).map((containerd) => ({
    node: {
      containerd,
      containerdSettings: `[plugins."io.containerd.grpc.v1.cri".containerd]\ndiscard_unpacked_layers = true`
    },
    line: discards
  })),
  {
    node: {
      containerd: "2.1",
      containerdSettings: `[plugins."io.containerd.cri.v1.images"]\ndiscard_unpacked_layers = true`
    },
    line: discards
  }
]

const withinSeconds = 60

const notices = Effect.fnUntraced(function*(installation: Installation, { line, node: options }: Fault, name: string) {
  const { cluster, newImage } = installation
  const node = yield* cluster.addNode({ ...options, name })
  yield* cluster.nodeReady(node)
  yield* installation.mirrorReady(node)
  const pod = yield* installation.podOn(node)
  yield* Pods.pull(cluster, node, yield* newImage())
  const pulled = performance.now()
  const lines = Effect.map(
    installation.inNamespace("logs", pod),
    (log) => log.split("\n").filter((text) => text.includes("WARN") && line.test(text))
  )
  yield* eventually(
    `the mirror of ${options.containerd} says what is wrong`,
    `${withinSeconds} seconds`,
    Effect.flatMap(lines, ({ length }) => Steps.promise(length > 0, `${line} is not in its log`))
  )
  const seconds = (performance.now() - pulled) / 1000
  yield* Pods.pull(cluster, node, yield* newImage())
  const said = yield* lines
  yield* node.kill
  yield* cluster.kubectl(["delete", "node", node.nodeName])
  yield* Steps.promise(said.length === 1, `it is said ${said.length} times`)
  return `${options.containerd} after ${seconds.toFixed(0)} s`
}, Effect.scoped)

/** Each on a node of its own. */
export const noticed = (installation: Installation) =>
  Effect.forEach(faults, (fault, index) => notices(installation, fault, `fault-${index}`)).pipe(
    Effect.map((figures) => figures.join(", "))
  )

/** No mirror of a healthy node reports such a fault, whatever other scenarios did. */
export const noneTold = Effect.fnUntraced(function*(installation: Installation) {
  for (const node of installation.nodes) {
    const log = yield* installation.inNamespace("logs", yield* installation.podOn(node))
    const told = log.split("\n").filter((text) => [unused, upgrade, discards].some((line) => line.test(text)))
    yield* Steps.promise(told.length === 0, `${node.nodeName}: ${told.join("; ")}`)
  }
  return ""
})
