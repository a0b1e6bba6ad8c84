/** The chart on a cluster, as a user installs it, with the steps that scenarios share. */
import { Effect } from "effect"
import { type Cluster, eventually, type Node } from "./Cluster.ts"
import * as NodeFiles from "./NodeFiles.ts"
import * as Pods from "./Pods.ts"
import * as Steps from "./Steps.ts"
import * as Upstream from "./Upstream.ts"

const namespace = "spegel"

/** Tag of the image of the release before. */
export const tagBefore = "before"

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
  const files = NodeFiles.make()
  const colon = image.lastIndexOf(":")
  const imageValues = [`image.repository=${image.slice(0, colon)}`, `image.tag=${image.slice(colon + 1)}`]
  const inNamespace = (...args: ReadonlyArray<string>) => cluster.kubectl(["--namespace", namespace, ...args])
  const rolledOut = inNamespace("rollout", "status", "daemonset/spegel", "--timeout=150s")

  /** Installs or upgrades with these values (`a.b=c`) over the chart's; gives what helm printed. */
  const install = (values: ReadonlyArray<string> = [], from: string = chart) => {
    const set = [...imageValues, ...values].flatMap((value) => ["--set", value])
    return cluster.helm(["upgrade", "--install", "spegel", from, "-n", namespace, "--create-namespace", ...set])
  }

  /** Installs or upgrades, and waits until all mirrors are ready. */
  const apply = (values: ReadonlyArray<string> = [], from: string = chart) =>
    Effect.andThen(install(values, from), rolledOut)

  /** The name of the mirror's pod on a node, unless it is being stopped; empty if there is none. */
  const podOn = ({ nodeName }: Node) =>
    Effect.map(
      inNamespace(
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/component=spegel",
        `--field-selector=spec.nodeName=${nodeName}`,
        "-o",
        `go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}`
      ),
      (text) => text.trim()
    )

  /** The address of the mirror on a node. */
  const addressOn = (node: Node) =>
    Effect.flatMap(podOn(node), (pod) => inNamespace("get", "pod", pod, "-o", "jsonpath={.status.podIP}"))

  /** Waits until a new node has a mirror that is ready. */
  const mirrorReady = (node: Node) =>
    eventually(
      `${node.nodeName} has a mirror`,
      "60 seconds",
      Effect.flatMap(
        podOn(node),
        (pod) => inNamespace("wait", "--for=condition=Ready", `pod/${pod}`, "--timeout=2s")
      )
    )

  let images = 0
  /** Makes an image that no node has. */
  const newImage = (sizes: ReadonlyArray<number> = layerSizes) =>
    Effect.suspend(() => {
      images++
      return cluster.upstream.pushPod(`team/app-${images}:1`, sizes, images)
    })

  /** Pulls a new image on the first node, then on the others, which must get all of it from peers. */
  const pullEverywhere = Effect.fnUntraced(function*(among: ReadonlyArray<Node> = nodes) {
    const name = yield* newImage()
    const [first, ...others] = among
    if (first === undefined) return ""
    const [firstPull, firstTraffic] = yield* cluster.upstream.during(Pods.pull(cluster, first, name))
    yield* Steps.promise(Upstream.bytesOf(firstTraffic, [first]) > 0, "nobody had it, and upstream sent nothing")
    const pulls = [firstPull]
    const [, traffic] = yield* cluster.upstream.during(
      Effect.forEach(others, (node) => Effect.map(Pods.pull(cluster, node, name), (pull) => pulls.push(pull)))
    )
    const failed = pulls.flatMap(({ failures }) => failures)
    yield* Steps.promise(failed.length === 0, `pulls failed: ${failed.join("; ")}`)
    const bytes = Upstream.bytesOf(traffic, others)
    yield* Steps.promise(bytes === 0, `upstream sent ${bytes} bytes to nodes whose peer had all`)
    return pulls.map(({ node, seconds }) => `${node} ${seconds.toFixed(2)} s`).join(", ")
  })

  /** Uninstalls, and gives what helm printed and how long it took. */
  const uninstall = Effect.suspend(() => {
    const started = performance.now()
    return Effect.map(
      cluster.helm(["uninstall", "spegel", "-n", namespace]),
      (output) => ({ output, seconds: (performance.now() - started) / 1000 })
    )
  })

  /** Waits until nothing of the release is left in the namespace. */
  const isEmpty = eventually(
    "nothing is left in the namespace",
    "60 seconds",
    Effect.flatMap(
      inNamespace("get", "jobs,daemonsets,pods,services,roles,rolebindings", "-o", "name"),
      (left) => Steps.promise(left.trim() === "", `left: ${left}`)
    )
  )

  /** Uninstalls; all nodes must be restored in a time that an operator waits for, and named by helm. */
  const remove = Effect.gen(function*() {
    yield* Effect.forEach(nodes, files.isChanged)
    const { output, seconds } = yield* uninstall
    const names = nodes.map(({ nodeName }) => nodeName).toSorted().join(", ")
    yield* Steps.promise(output.includes(`restored ${nodes.length} nodes: ${names}`), `helm printed ${output}`)
    yield* Steps.promise(seconds <= 60, `it took ${seconds.toFixed(1)} s`)
    yield* Effect.forEach(nodes, files.isRestored)
    yield* isEmpty
    return `${seconds.toFixed(1)} s`
  })

  return {
    cluster,
    nodes,
    namespace,
    install,
    apply,
    inNamespace,
    rolledOut,
    restart: Effect.andThen(inNamespace("rollout", "restart", "daemonset/spegel"), rolledOut),
    /** Prepares the nodes; to be done before the first installation. */
    prepare: Effect.forEach(nodes, files.prepare),
    podOn,
    addressOn,
    mirrorReady,
    newImage,
    pullEverywhere,
    uninstall,
    isRestored: files.isRestored,
    isEmpty,
    remove
  }
}

export type Installation = ReturnType<typeof make>
