/** Checks the chart's dashboard and alerts against a Prometheus that scrapes the mirrors, and notes which have shown their event. */
import { Effect, Schema } from "effect"
import { readFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"
import { parse } from "yaml"
import { inUrl } from "../Addresses.ts"
import { eventually, type Node } from "../Cluster.ts"
import type { Installation } from "../Installation.ts"
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
    targets: Schema.optionalKey(Schema.Array(Schema.Struct({ expr: Schema.String, refId: Schema.String })))
  }))
}))

/** The expressions of the alerts, by name. */
const readAlerts = Effect.gen(function*() {
  const text = yield* Effect.promise(() => readFile(`${chart}/alerts/spegel.yaml`, "utf8"))
  const { groups } = yield* Schema.decodeUnknownEffect(Rules)(parse(text))
  return new Map(groups.flatMap(({ rules }) => rules.map(({ alert, expr }) => [alert, expr] as const)))
})

/** The queries of the panels, as Grafana makes them for a namespace: by title, with the letter if a panel has several. */
const readPanels = Effect.fnUntraced(function*(namespace: string) {
  const text = yield* Effect.promise(() => readFile(`${chart}/dashboards/spegel.json`, "utf8"))
  const { panels } = yield* Schema.decodeEffect(Dashboard)(text)
  return new Map(panels.flatMap(({ targets = [], title }) =>
    targets.map(({ expr, refId }) =>
      [
        targets.length === 1 ? title : `${title} ${refId}`,
        expr.replaceAll("$namespace", namespace).replaceAll("$__rate_interval", "1m")
      ] as const
    )
  ))
})

export type Samples = ReadonlyArray<Prometheus.Sample>

/** Whether there is a line with these labels and a value above 0. */
export const has = (labels: Readonly<Record<string, string>>) => (samples: Samples): boolean =>
  samples.some((sample) =>
    sample.value > 0 && Object.entries(labels).every(([name, value]) => sample.labels[name] === value)
  )

/** Whether the only line's value is this one. */
export const is = (value: number) => (samples: Samples): boolean => samples.length === 1 && samples[0]?.value === value

/** The expression of an alert or a panel; fails if the chart has none of that name. */
const expressionOf = (expressions: ReadonlyMap<string, string>, name: string) => {
  const expression = expressions.get(name)
  return expression === undefined
    ? Effect.fail(new Steps.NotAsPromised({ reason: `the chart has no "${name}"` }))
    : Effect.succeed(expression)
}

/** Scrapes the mirrors that run now, while the scope is open. */
export const start = Effect.fnUntraced(function*({ addressOn, cluster, namespace, nodes, podOn }: Installation) {
  const pods = new Map(yield* Effect.forEach(nodes, (node) => Effect.map(podOn(node), (pod) => [node, pod] as const)))
  const addresses = new Map(
    yield* Effect.forEach(nodes, (node) => Effect.map(addressOn(node), (address) => [node, address] as const))
  )
  const { query } = yield* Prometheus.start(
    cluster,
    nodes.map((node) => ({
      address: `${inUrl(addresses.get(node) ?? "")}:9090`,
      labels: { namespace, pod: pods.get(node) ?? "" }
    }))
  )
  const [alerts, panels] = [yield* readAlerts, yield* readPanels(namespace)]
  const unseen = new Set([...alerts.keys(), ...panels.keys()])

  const until = Effect.fnUntraced(function*(
    name: string,
    expressions: ReadonlyMap<string, string>,
    holds: (samples: Samples) => boolean
  ) {
    const expression = yield* expressionOf(expressions, name)
    const check = Effect.flatMap(
      query(expression),
      (samples) => Steps.promise(holds(samples), `it gives ${JSON.stringify(samples)}`)
    )
    yield* eventually(`${name} is as it should be`, "60 seconds", check)
    unseen.delete(name)
  })

  return {
    /** Address of a node's mirror. */
    addressOf: (node: Node) => addresses.get(node) ?? "",
    podOf: (node: Node) => pods.get(node) ?? "",
    /** Waits until an alert names the pod of this node and no other, or the namespace. */
    fires: (alert: string, node?: Node) =>
      until(alert, alerts, (samples) =>
        samples.length > 0 &&
        samples.every(({ labels }) => node === undefined || labels["pod"] === pods.get(node))),
    /** No alert fires. */
    quiet: eventually(
      "no alert fires",
      "30 seconds",
      Effect.forEach(alerts, ([alert, expression]) =>
        Effect.flatMap(
          query(expression),
          (samples) => Steps.promise(samples.length === 0, `${alert} gives ${JSON.stringify(samples)}`)
        ))
    ),
    /** Waits until a panel shows something. */
    shows: (panel: string, holds: (samples: Samples) => boolean) => until(panel, panels, holds),
    /** All alerts and panels have shown their event. Gives how many there are. */
    all: Effect.suspend(() =>
      Effect.as(
        Steps.promise(unseen.size === 0, `nothing was made to happen for ${[...unseen].join(", ")}`),
        `${panels.size} queries of panels and ${alerts.size} alerts, each shown its event`
      )
    )
  }
})

export type Observation = Effect.Success<ReturnType<typeof start>>
