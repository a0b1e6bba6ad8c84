/** The life of an installation, in the order in which an operator meets it. */
import { Effect } from "effect"
import { type Cluster, eventually, type Node } from "./Cluster.ts"
import * as Pods from "./Pods.ts"
import * as Steps from "./Steps.ts"

const namespace = "spegel"
const mebibyte = 2 ** 20

interface Options {
  readonly smoke: boolean
  readonly only: string
  readonly image: string
  readonly chart: string
}

/** Flags of helm that name the image that was pushed. */
const imageValues = (image: string) => {
  const colon = image.lastIndexOf(":")
  return ["--set", `image.repository=${image.slice(0, colon)}`, "--set", `image.tag=${image.slice(colon + 1)}`]
}

const install = (cluster: Cluster, chart: string, values: ReadonlyArray<string>) =>
  cluster.helm([
    "upgrade",
    "--install",
    "spegel",
    chart,
    "--namespace",
    namespace,
    "--create-namespace",
    ...values
  ])

const rolledOut = (cluster: Cluster) =>
  cluster.kubectl(["--namespace", namespace, "rollout", "status", "daemonset/spegel", "--timeout=150s"])

const inSpegel = (cluster: Cluster, ...args: ReadonlyArray<string>) =>
  cluster.kubectl(["--namespace", namespace, ...args])

/** Pulls on the first node, then on the others: those must get everything from peers. */
const pullEverywhere = Effect.fnUntraced(function*(cluster: Cluster, nodes: ReadonlyArray<Node>, image: string) {
  const [first, ...others] = nodes
  if (first === undefined) return ""
  const pulls = [yield* Pods.pull(cluster, first, image)]
  const [, traffic] = yield* cluster.upstream.during(
    Effect.forEach(others, (node) => Effect.map(Pods.pull(cluster, node, image), (pull) => pulls.push(pull))),
    "/v2/team/"
  )
  yield* Steps.promise(traffic.bytes === 0, `upstream sent ${traffic.bytes} bytes to nodes whose peer had all`)
  return pulls.map(({ node, seconds }) => `${node} ${seconds.toFixed(2)} s`).join(", ")
})

/** No file of ours is left where containerd looks for mirrors. */
const configurationIsGone = (nodes: ReadonlyArray<Node>) =>
  Effect.forEach(
    nodes,
    Effect.fnUntraced(function*(node) {
      const left = yield* node.run("find", "/etc/containerd/certs.d", "-type", "f")
      yield* Steps.promise(left === "", `left on ${node.nodeName}: ${left}`)
    }),
    { discard: true }
  )

export const run = Effect.fnUntraced(function*(cluster: Cluster, options: Options) {
  const { upstream } = cluster
  const image = yield* upstream.pushArchive(options.image, "spegel-ts/spegel:test")
  yield* upstream.pushPod("cluster/pause:1", [], 0)
  const app = yield* upstream.pushPod("team/app:1", [16, 16, 16, 16].map((size) => size * mebibyte), 1)
  const nodes = yield* Effect.forEach(
    [
      { name: "a", containerd: "1.6" },
      { name: "b", containerd: "1.7" },
      { name: "c", containerd: "2.1" }
    ] as const,
    cluster.addNode
  )
  yield* Effect.forEach(nodes, cluster.nodeReady)

  const rows: Array<Steps.Row> = []
  const step = <E extends { readonly message: string }, R>(name: string, effect: Effect.Effect<string, E, R>) =>
    Effect.map(Steps.run(cluster, name, effect), (row) => rows.push(row))

  yield* step(
    "install",
    Effect.as(
      Effect.andThen(install(cluster, options.chart, imageValues(image)), rolledOut(cluster)),
      `${nodes.length} nodes`
    )
  )
  yield* step("pull on node-a, then on the others", pullEverywhere(cluster, nodes, app))
  yield* step(
    "restart all mirrors",
    Effect.as(
      Effect.andThen(inSpegel(cluster, "rollout", "restart", "daemonset/spegel"), rolledOut(cluster)),
      ""
    )
  )
  yield* step(
    "uninstall",
    Effect.gen(function*() {
      yield* cluster.helm(["uninstall", "spegel", "--namespace", namespace])
      yield* configurationIsGone(nodes)
      yield* eventually(
        "no Job and no pod is left",
        "30 seconds",
        Effect.flatMap(
          inSpegel(cluster, "get", "jobs,pods", "-o", "name"),
          (left) => Steps.promise(left.trim() === "", `left: ${left}`)
        )
      )
      return ""
    })
  )
  return rows
})
