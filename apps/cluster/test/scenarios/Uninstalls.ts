/** Uninstalls that cannot restore every node, or not in the usual way. Each ends, says so, and leaves nothing behind. */
import { Effect } from "effect"
import { eventually, type Node } from "../Cluster.ts"
import type { Installation } from "../Installation.ts"
import * as Steps from "../Steps.ts"

const waitSeconds = 20
const short = `cleanup.timeoutSeconds=${waitSeconds}`

/** Uninstalls, expects that it fails in its time, and gives what helm printed. */
const failing = Effect.fnUntraced(function*({ inNamespace, uninstall }: Installation) {
  const started = performance.now()
  const output = yield* Effect.match(uninstall, {
    onSuccess: ({ output }) => ({ failed: false, output }),
    onFailure: ({ output }) => ({ failed: true, output })
  })
  const seconds = (performance.now() - started) / 1000
  yield* Steps.promise(output.failed, `helm says that all is well: ${output.output}`)
  // The second pod of the Job comes 10 s after the first has failed.
  yield* Steps.promise(seconds < waitSeconds + 60, `it took ${seconds.toFixed(1)} s`)
  const jobs = yield* inNamespace("get", "jobs", "-o", "name")
  yield* Steps.promise(jobs === "", `a Job is left: ${jobs}`)
  return { output: output.output, seconds }
})

const mentions = (output: string, texts: ReadonlyArray<string>) =>
  Effect.forEach(texts, (text) => Steps.promise(output.includes(text), `helm does not say "${text}": ${output}`))

/** An uninstall needs no DNS. */
export const dnsDown = Effect.fnUntraced(function*(installation: Installation) {
  const took = yield* Effect.scoped(Effect.andThen(installation.cluster.withoutDns, installation.remove))
  yield* installation.apply()
  return took
})

/** A node loses its power before the uninstall, which restores the others and names it. */
export const nodeDown = Effect.fnUntraced(function*(installation: Installation) {
  const { apply, cluster, inNamespace, isRestored, mirrorReady, nodes } = installation
  const node = yield* cluster.addNode({ name: "down", containerd: "2.1" })
  yield* cluster.nodeReady(node)
  yield* apply([short])
  yield* mirrorReady(node)
  yield* node.kill
  yield* eventually(
    "the node is known to be down",
    "2 minutes",
    cluster.kubectl(["wait", "--for=condition=Ready=Unknown", `node/${node.nodeName}`, "--timeout=2s"])
  )
  const { output, seconds } = yield* failing(installation)
  const names = nodes.map(({ nodeName }) => nodeName).toSorted().join(", ")
  yield* mentions(output, [
    `restored ${nodes.length} nodes: ${names}`,
    `not restored: ${node.nodeName} (`,
    "spegel cleanup"
  ])
  yield* Effect.forEach(nodes, isRestored)
  yield* cluster.kubectl(["delete", "node", node.nodeName])
  yield* inNamespace("delete", "pods", "--all", "--force", "--grace-period=0")
  yield* apply()
  return `${seconds.toFixed(1)} s`
}, Effect.scoped)

const enforce = "pod-security.kubernetes.io/enforce"

/** The namespace refuses pods that touch nodes. All nodes are named; with the label that is advised they are restored. */
export const podSecurity = Effect.fnUntraced(function*(installation: Installation) {
  const { apply, cluster, isEmpty, namespace, nodes, remove } = installation
  const level = (level: string) =>
    cluster.kubectl(["label", "--overwrite", "namespace", namespace, `${enforce}=${level}`])
  const seconds: Array<string> = []
  for (const refusing of ["baseline", "restricted"]) {
    yield* level("privileged")
    yield* apply([short])
    yield* level(refusing)
    const refused = yield* failing(installation)
    yield* mentions(refused.output, [
      ...nodes.map(({ nodeName }) => nodeName),
      "violates PodSecurity",
      `${refusing}:latest`,
      `${enforce}=privileged`
    ])
    yield* isEmpty
    seconds.push(`${refusing} ${refused.seconds.toFixed(1)} s`)
  }
  yield* level("privileged")
  yield* apply()
  yield* remove
  yield* apply()
  yield* cluster.kubectl(["label", "namespace", namespace, `${enforce}-`])
  return seconds.join(", ")
})

/** A node that had a mirror once is restored too, and an identity that is not kept any more is removed. */
export const leftSelector = Effect.fnUntraced(function*(installation: Installation) {
  const { apply, cluster, nodes, podOn, remove } = installation
  const last = nodes.at(-1)
  if (last === undefined) return ""
  const label = (node: Node, value: string) =>
    cluster.kubectl(["label", "--overwrite", "node", node.nodeName, `spegel.test/mirror=${value}`])
  yield* Effect.forEach(nodes, (node) => label(node, "yes"))
  const values = [String.raw`nodeSelector.spegel\.test/mirror=yes`]
  yield* apply(values)
  yield* label(last, "no")
  yield* eventually(
    "the node has no mirror any more",
    "60 seconds",
    Effect.flatMap(podOn(last), (pod) => Steps.promise(pod === "", `${pod} is there`))
  )
  yield* apply([...values, "spegel.persistence.enabled=false"])
  const files = yield* last.run("find", "/etc/containerd/certs.d", "/var/lib/spegel", "-type", "f")
  yield* Steps.promise(
    files.includes("hosts.toml") && files.includes("private.key"),
    `there is nothing to restore on ${last.nodeName}: ${files}`
  )
  const took = yield* remove
  yield* apply()
  return took
})
