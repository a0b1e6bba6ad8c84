/** The chart on a cluster, as a user installs it, and what all scenarios ask of it. */
import { Effect } from "effect"
import { type Cluster, eventually, type Node } from "./Cluster.ts"
import * as Pods from "./Pods.ts"
import * as Steps from "./Steps.ts"

const namespace = "spegel"

export interface InstallationOptions {
  readonly cluster: Cluster
  readonly nodes: ReadonlyArray<Node>
  readonly chart: string
  /** The mirror's image in the cluster's registry. */
  readonly image: string
}

const mebibyte = 2 ** 20

/** Layers of the images that pods pull, in bytes. */
const layerSizes = [16, 16, 16, 16].map((size) => size * mebibyte)

export const make = ({ chart, cluster, image, nodes }: InstallationOptions) => {
  const colon = image.lastIndexOf(":")
  const imageValues = [`image.repository=${image.slice(0, colon)}`, `image.tag=${image.slice(colon + 1)}`]
  const inNamespace = (...args: ReadonlyArray<string>) => cluster.kubectl(["--namespace", namespace, ...args])
  const rolledOut = inNamespace("rollout", "status", "daemonset/spegel", "--timeout=150s")

  /** Installs or upgrades with these values (`a.b=c`) over the chart's, and waits until all mirrors are ready. */
  const apply = (values: ReadonlyArray<string> = [], from: string = chart) => {
    const set = [...imageValues, ...values].flatMap((value) => ["--set", value])
    return cluster.helm(["upgrade", "--install", "spegel", from, "-n", namespace, "--create-namespace", ...set]).pipe(
      Effect.andThen(rolledOut)
    )
  }

  /** The mirror's pod on a node. */
  const podOn = ({ nodeName }: Node) =>
    Effect.map(
      inNamespace(
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/component=spegel",
        `--field-selector=spec.nodeName=${nodeName}`,
        "-o",
        "name"
      ),
      (text) => text.trim()
    )

  let images = 0
  /** An image that no node has. */
  const newImage = (sizes: ReadonlyArray<number> = layerSizes) =>
    Effect.suspend(() => {
      images++
      return cluster.upstream.pushPod(`team/app:${images}`, sizes, images)
    })

  /** Pulls a new image on the first node, then on the others: those must get everything from peers. */
  const pullEverywhere = Effect.fnUntraced(function*(among: ReadonlyArray<Node> = nodes) {
    const name = yield* newImage()
    const [first, ...others] = among
    if (first === undefined) return ""
    const pulls = [yield* Pods.pull(cluster, first, name)]
    const [, traffic] = yield* cluster.upstream.during(
      Effect.forEach(others, (node) => Effect.map(Pods.pull(cluster, node, name), (pull) => pulls.push(pull)))
    )
    const failed = pulls.flatMap(({ failures }) => failures)
    yield* Steps.promise(failed.length === 0, `pulls failed: ${failed.join("; ")}`)
    const bytes = cluster.upstream.bytesOf(traffic, others)
    yield* Steps.promise(bytes === 0, `upstream sent ${bytes} bytes to nodes whose peer had all`)
    return pulls.map(({ node, seconds }) => `${node} ${seconds.toFixed(2)} s`).join(", ")
  })

  /** Uninstalls; then no file of ours is left where containerd looks for mirrors, and nothing in the namespace. */
  const remove = Effect.gen(function*() {
    yield* cluster.helm(["uninstall", "spegel", "-n", namespace])
    for (const node of nodes) {
      const left = yield* node.run("find", "/etc/containerd/certs.d", "-type", "f")
      yield* Steps.promise(left === "", `left on ${node.nodeName}: ${left}`)
    }
    yield* eventually(
      "no Job and no pod is left",
      "30 seconds",
      Effect.flatMap(
        inNamespace("get", "jobs,pods", "-o", "name"),
        (left) => Steps.promise(left.trim() === "", `left: ${left}`)
      )
    )
  })

  return {
    cluster,
    nodes,
    namespace,
    apply,
    inNamespace,
    rolledOut,
    restart: Effect.andThen(inNamespace("rollout", "restart", "daemonset/spegel"), rolledOut),
    podOn,
    newImage,
    pullEverywhere,
    remove
  }
}

export type Installation = ReturnType<typeof make>
