/** The life of an installation, in the order in which an operator meets it. */
import { Effect } from "effect"
import { type Cluster, eventually } from "./Cluster.ts"
import * as Installation from "./Installation.ts"
import * as Pods from "./Pods.ts"
import * as ClusterKey from "./scenarios/ClusterKey.ts"
import * as Doctor from "./scenarios/Doctor.ts"
import * as Faults from "./scenarios/Faults.ts"
import * as Installs from "./scenarios/Installs.ts"
import * as Metrics from "./scenarios/Metrics.ts"
import * as Nodes from "./scenarios/Nodes.ts"
import * as Restarts from "./scenarios/Restarts.ts"
import * as Rollout from "./scenarios/Rollout.ts"
import * as Settings from "./scenarios/Settings.ts"
import * as Uninstalls from "./scenarios/Uninstalls.ts"
import * as Steps from "./Steps.ts"

interface Options {
  readonly smoke: boolean
  readonly only: string
  readonly image: string
  readonly imageBefore: string
  readonly chart: string
}

/** A kubelet tells this of a pod in a new namespace, and mounts the volume a moment later. */
const slowCache = /^FailedMount .*failed to sync (?:configmap|secret) cache/

/** A start without faults shows no warning. */
const withoutWarnings = Effect.fnUntraced(function*({ cluster, namespace }: Installation.Installation) {
  const { items } = yield* Pods.eventsOf(cluster, namespace)
  const warnings = items.filter(({ type }) => type === "Warning")
    .map(({ message = "", reason }) => `${reason} ${message}`)
    .filter((warning) => !slowCache.test(warning))
  yield* Steps.promise(warnings.length === 0, `warnings: ${[...new Set(warnings)].join("; ")}`)
  return `${items.length} events`
})

/** The other mirrors have to be known: their number is published a few seconds after they have met. */
const helmTest = ({ cluster, namespace, nodes }: Installation.Installation) =>
  eventually(
    "helm test shows the other mirrors",
    "30 seconds",
    Effect.gen(function*() {
      const output = yield* cluster.helm(["test", "spegel", "-n", namespace])
      const peers = /spegel_router_peers{[^}]*} (\d+)/.exec(output)?.[1]
      yield* Steps.promise(peers === String(nodes.length - 1), `it shows ${peers} peers: ${output}`)
      return `${peers} peers`
    })
  )

/** A restart without faults is no news: no mirror warns of it. */
const quietRestart = Effect.fnUntraced(function*({ inNamespace, restart }: Installation.Installation) {
  yield* restart
  const logs = yield* inNamespace("logs", "-l", "app.kubernetes.io/component=spegel", "--tail=-1")
  const lines = logs.split("\n").filter((line) => line !== "")
  const warnings = lines.filter((line) => /"level":"(?:WARN|ERROR)"/.test(line))
  yield* Steps.promise(
    lines.some((line) => line.includes("\"msg\":\"running\"")),
    `the logs are not as expected: ${logs}`
  )
  yield* Steps.promise(warnings.length === 0, `mirrors warn: ${warnings.join("; ")}`)
  return `${lines.length} lines of logs`
})

/** All scenarios; those of a smoke test come first. */
const scenarios = (installation: Installation.Installation) => [
  { name: "no warnings at the start", smoke: true, effect: withoutWarnings(installation) },
  { name: "helm test", smoke: true, effect: helmTest(installation) },
  { name: "mirrors prove the cluster key", smoke: true, effect: ClusterKey.proved(installation) },
  { name: "pull on one node, then on the others", smoke: true, effect: installation.pullEverywhere() },
  { name: "spegel doctor proves every node", smoke: true, effect: Doctor.provesEveryNode(installation) },
  { name: "a new image on all nodes at once", smoke: true, effect: Rollout.everywhereAtOnce(installation) },
  { name: "restart all mirrors", smoke: true, effect: quietRestart(installation) },
  { name: "pull after the restart", smoke: true, effect: installation.pullEverywhere() },
  { name: "no fault of containerd is told", smoke: true, effect: Faults.noneTold(installation) },
  { name: "restart three times under pulls", smoke: false, effect: Restarts.restartsUnderPulls(installation) },
  { name: "replace the cluster key, under pulls", smoke: false, effect: ClusterKey.replaced(installation) },
  { name: "drain a node", smoke: false, effect: Nodes.drain(installation) },
  { name: "lose a node", smoke: false, effect: Nodes.lost(installation) },
  { name: "a new node with a readiness taint", smoke: false, effect: Nodes.fresh(installation) },
  { name: "faults of containerd are noticed", smoke: false, effect: Faults.noticed(installation) },
  { name: "bootstrap by a Lease", smoke: false, effect: Settings.kubernetesBootstrap(installation) },
  { name: "host port and node port", smoke: false, effect: Settings.hostPort(installation) },
  { name: "node port only", smoke: false, effect: Settings.nodePort(installation) },
  { name: "the cluster's DNS is down", smoke: false, effect: Settings.dnsDown(installation) },
  { name: "no identity is kept", smoke: false, effect: Settings.withoutPersistence(installation) },
  { name: "dashboard and alerts", smoke: false, effect: Metrics.dashboardAndAlerts(installation) },
  {
    name: "upgrade from 0.1.0, roll back, upgrade, under pulls",
    smoke: false,
    effect: Restarts.upgradeUnderPulls(installation)
  },
  { name: "install at each Pod Security level", smoke: false, effect: Installs.podSecurity(installation) },
  { name: "uninstall while the cluster's DNS is down", smoke: false, effect: Uninstalls.dnsDown(installation) },
  { name: "uninstall while a node is down", smoke: false, effect: Uninstalls.nodeDown(installation) },
  { name: "uninstall while Pod Security is in the way", smoke: false, effect: Uninstalls.podSecurity(installation) },
  { name: "uninstall of a node that left the selector", smoke: false, effect: Uninstalls.leftSelector(installation) }
]

export const run = Effect.fnUntraced(function*(cluster: Cluster, options: Options) {
  const { upstream } = cluster
  const image = yield* upstream.pushArchive(options.image, "spegel-ts/spegel:test")
  yield* upstream.pushArchive(options.imageBefore, `spegel-ts/spegel:${Installation.tagBefore}`)
  yield* upstream.pushPod("cluster/pause:1", [], 0)
  const nodes = yield* Effect.forEach(
    [
      { name: "a", containerd: "1.6" },
      { name: "b", containerd: "1.7" },
      { name: "c", containerd: "2.1" }
    ] as const,
    cluster.addNode
  )
  yield* Effect.forEach(nodes, cluster.nodeReady)

  const installation = Installation.make({ cluster, nodes, chart: options.chart, image })
  yield* installation.prepare
  const chosen = scenarios(installation).filter(({ name, smoke }) =>
    (smoke || !options.smoke) && options.only.split("|").some((part) => name.includes(part))
  )
  return yield* Effect.forEach(
    [
      { name: "install", effect: Effect.as(installation.apply(), `${nodes.length} nodes`) },
      ...chosen,
      { name: "uninstall", effect: installation.remove }
    ],
    ({ effect, name }) => Steps.run(cluster, name, effect)
  )
})
