/** Pods that make a kubelet pull an image, and the kubelet's events about the pull. */
import { Effect, Schedule, Schema } from "effect"
import { type Cluster, eventually, type Node } from "./Cluster.ts"

const Events = Schema.fromJsonString(Schema.Struct({
  items: Schema.Array(Schema.Struct({
    reason: Schema.String,
    type: Schema.String,
    message: Schema.optionalKey(Schema.String),
    involvedObject: Schema.Struct({ kind: Schema.String, name: Schema.optionalKey(Schema.String) })
  }))
}))
const decodeEvents = Schema.decodeEffect(Events)

/** The events of a namespace, the oldest first. */
export const eventsOf = (cluster: Cluster, namespace: string) =>
  Effect.flatMap(
    cluster.kubectl(["--namespace", namespace, "get", "events", "--sort-by=.metadata.creationTimestamp", "-o", "json"]),
    decodeEvents
  )

const pod = (name: string, { nodeName }: Node, image: string) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace: "default" },
  spec: {
    nodeName,
    terminationGracePeriodSeconds: 0,
    tolerations: [{ operator: "Exists" }],
    containers: [{ name: "main", image }]
  }
})

/** The seconds in a kubelet's message, such as `in 1m2.5s` or `in 340ms`. */
const secondsOf = (message: string): number => {
  const duration = / in (?:(\d+)m)?([\d.]+)(ms|s) /.exec(message)
  const [, minutes = "0", value = "NaN", unit] = duration ?? []
  return Number(minutes) * 60 + Number(value) * (unit === "ms" ? 0.001 : 1)
}

export interface Pull {
  readonly node: string
  readonly image: string
  /** The duration that the kubelet reports. */
  readonly seconds: number
  /** Pulls that failed before this one. */
  readonly failures: ReadonlyArray<string>
}

let made = 0

/** Runs a pod of the image on a node, and removes it. */
export const pull = Effect.fnUntraced(function*(cluster: Cluster, node: Node, image: string) {
  const name = `pull-${node.name}-${++made}`
  yield* cluster.apply(pod(name, node, image))
  yield* eventually(
    `${name} runs ${image}`,
    "90 seconds",
    cluster.kubectl(["wait", "--for=condition=Ready", `pod/${name}`, "--timeout=2s"])
  )
  const ofPod = Effect.map(
    eventsOf(cluster, "default"),
    ({ items }) => items.filter(({ involvedObject }) => involvedObject.name === name)
  )
  const events = yield* Effect.repeat(ofPod, {
    until: (events) => events.some(({ reason }) => reason === "Pulled"),
    times: 40,
    schedule: Schedule.spaced("100 millis")
  })
  yield* cluster.kubectl(["delete", "pod", name, "--wait=false"])
  const pulled = events.find(({ reason }) => reason === "Pulled")?.message ?? ""
  return {
    node: node.nodeName,
    image,
    seconds: secondsOf(pulled),
    failures: events.filter(({ reason }) => reason === "Failed").map(({ message = "" }) => message)
  } satisfies Pull
})
