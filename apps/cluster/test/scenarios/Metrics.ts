/** The dashboard and the alerts over a cluster that is scraped: each shows its event when it is made to happen. */
import { Effect, Schema } from "effect"
import { readFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"
import { parse } from "yaml"
import { eventually, type Node } from "../Cluster.ts"
import type { Installation } from "../Installation.ts"
import * as Pods from "../Pods.ts"
import * as Prometheus from "../Prometheus.ts"
import * as Steps from "../Steps.ts"

const chart = fileURLToPath(new URL("../../../../charts/spegel", import.meta.url))

const Rules = Schema.Struct({
  groups: Schema.Array(Schema.Struct({
    rules: Schema.Array(Schema.Struct({ alert: Schema.String, expr: Schema.String }))
  }))
})
const Dashboard = Schema.fromJsonString(Schema.Struct({
  panels: Schema.Array(Schema.Struct({
    title: Schema.String,
    targets: Schema.optionalKey(Schema.Array(Schema.Struct({ expr: Schema.String })))
  }))
}))

/** The expressions of the alerts, by name. */
const alerts = Effect.gen(function*() {
  const text = yield* Effect.promise(() => readFile(`${chart}/alerts/spegel.yaml`, "utf8"))
  const { groups } = yield* Schema.decodeUnknownEffect(Rules)(parse(text))
  return new Map(groups.flatMap(({ rules }) => rules.map(({ alert, expr }) => [alert, expr] as const)))
})

/** What the panels ask, as Grafana would for the release's namespace. */
const panels = Effect.fnUntraced(function*(namespace: string) {
  const text = yield* Effect.promise(() => readFile(`${chart}/dashboards/spegel.json`, "utf8"))
  const { panels } = yield* Schema.decodeEffect(Dashboard)(text)
  return panels.flatMap(({ targets = [], title }) =>
    targets.map(({ expr }) => ({
      title,
      expression: expr.replaceAll("$namespace", namespace).replaceAll("$__rate_interval", "1m")
    }))
  )
})

const content = "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256"

/** Changes a byte of each of a node's blobs of a size, as a disk that errs. */
const damage = Effect.fnUntraced(function*(node: Node, size: number) {
  const found = yield* node.run("find", content, "-type", "f", "-size", `${size}c`)
  const paths = found.split("\n").filter((path) => path !== "")
  yield* Steps.promise(paths.length > 0, `${node.nodeName} has no blob of ${size} bytes`)
  yield* Effect.forEach(
    paths,
    (path) =>
      node.run("bash", "-c", `printf '\\xff\\xfe' | dd of=${path} bs=1 seek=${size >> 1} conv=notrunc status=none`)
  )
})

/** Takes a node's mirror out of the network of the others, while the scope is open. */
const withoutRouter = (node: Node) => {
  const rules = (change: "-I" | "-D") =>
    Effect.forEach(
      ["--dport", "--sport"],
      (port) => node.run("iptables", change, "FORWARD", "-p", "tcp", port, "5001", "-j", "DROP")
    )
  return Effect.acquireRelease(rules("-I"), () => Effect.ignore(rules("-D")))
}

export const dashboardAndAlerts = Effect.fnUntraced(function*(installation: Installation) {
  const { cluster, inNamespace, namespace, newImage, nodes, podOn, restart } = installation
  const [first, second, third] = nodes
  if (first === undefined || second === undefined || third === undefined) return ""
  yield* restart
  const names = new Map(
    yield* Effect.forEach(
      nodes,
      (node) => Effect.map(podOn(node), (name) => [node, name] as const)
    )
  )
  const targets = yield* Effect.forEach(names.values(), (pod) =>
    Effect.map(
      inNamespace("get", "pod", pod, "-o", "jsonpath={.status.podIP}"),
      (ip): Prometheus.Target => ({ address: `${ip}:9090`, labels: { namespace, pod } })
    ))
  const { query } = yield* Prometheus.start(cluster, targets)
  const expressions = yield* alerts

  /** Waits until an alert names the pods of these nodes, or the namespace. */
  const fires = (alert: string, node?: Node) =>
    eventually(
      `${alert} is seen`,
      "90 seconds",
      Effect.flatMap(query(expressions.get(alert) ?? ""), (samples) =>
        Steps.promise(
          samples.length > 0 && samples.every(({ labels }) => node === undefined || labels["pod"] === names.get(node)),
          `${alert} gives ${JSON.stringify(samples)}`
        ))
    )
  const quiet = Effect.forEach(
    expressions,
    ([alert, expression]) =>
      Effect.flatMap(
        query(expression),
        (samples) =>
          Steps.promise(samples.length === 0, `${alert} is seen without a reason: ${JSON.stringify(samples)}`)
      )
  )

  yield* quiet
  // Of more objects than the alert lets pass.
  const many = yield* newImage(Array.from({ length: 110 }, () => 1024))
  yield* Pods.pull(cluster, first, many)
  yield* fires("SpegelOnlyMisses")
  yield* Pods.pull(cluster, second, many)
  yield* eventually("a peer's answer ends it", "30 seconds", quiet)

  const asked = yield* panels(namespace)
  yield* eventually(
    "all panels show something",
    "30 seconds",
    Effect.forEach(
      asked,
      ({ expression, title }) =>
        Effect.flatMap(query(expression), (samples) =>
          Steps.promise(
            samples.some(({ value }) => !Number.isNaN(value)),
            `${title} shows nothing: ${expression}`
          ))
    )
  )

  const size = 8 * 2 ** 20 + 4096
  const damaged = yield* newImage([size])
  yield* Pods.pull(cluster, first, damaged)
  yield* damage(first, size)
  // One pull may fail, and the next is right.
  yield* Pods.pull(cluster, second, damaged)
  yield* fires("SpegelWrongBytes", second)
  yield* fires("SpegelDamagedBlobs", first)

  yield* withoutRouter(third)
  yield* fires("SpegelAlone", third)
  return `${asked.length} queries of panels, ${expressions.size} alerts silent, 4 of them made to fire`
}, Effect.scoped)
