/** What Kubernetes knows of the pods that clean nodes up: how many are done, and which nodes are not cleaned, and why. */
import { type Answer, type ApiClient, type ApiUnreachable, unexpected } from "@spegel-ts/kubernetes/ApiClient"
import type { ClusterAccessInvalid } from "@spegel-ts/kubernetes/ClusterAccess"
import { Data, Duration, Effect, Schema } from "effect"

/** The API server gave no usable answer; `reason` is what it answered, or why it did not. */
export class SurveyFailed extends Data.TaggedError("SurveyFailed")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** The DaemonSets that are surveyed, in one namespace. */
export interface SurveyOptions {
  readonly client: ApiClient
  readonly namespace: string
  /** DaemonSet whose pods clean up, and become ready when they are done. */
  readonly daemonSet: string
  /** DaemonSet of the mirrors, which may be gone already: the nodes of its pods must be cleaned too. */
  readonly mirrorDaemonSet: string
}

/** How far the cleanup has come. */
export interface Progress {
  /** Nodes that must be cleaned, as far as Kubernetes has counted. */
  readonly wanted: number
  /** Nodes that are clean. */
  readonly ready: number
  /** Whether Kubernetes has counted for the DaemonSet as it is now. */
  readonly current: boolean
  /** Time since the DaemonSet was created, by the API server's clock. */
  readonly age: Duration.Duration
}

/** A node that is not clean, and what is known of the reason. */
export interface Left {
  readonly node: string
  readonly reason: string
}

/** All nodes that are known, sorted by name. */
export interface Survey {
  readonly restored: ReadonlyArray<string>
  readonly left: ReadonlyArray<Left>
  /** Why Kubernetes created no pods for some nodes; empty where it created all. */
  readonly refusal: string
}

const deadline = Duration.seconds(10)
/** A page fits into the 1 MiB that an answer may have: a pod takes up to 20 kB. */
const pageSize = 40

const optional = Schema.optionalKey
const listOf = <S extends Schema.Top>(item: S) => optional(Schema.Array(item))
const text = optional(Schema.String)

const DaemonSet = Schema.Struct({
  metadata: Schema.Struct({ generation: optional(Schema.Number), creationTimestamp: Schema.String }),
  status: Schema.Struct({
    observedGeneration: optional(Schema.Number),
    desiredNumberScheduled: Schema.Number,
    numberReady: Schema.Number
  })
})

const Condition = Schema.Struct({ type: Schema.String, status: Schema.String, reason: text, message: text })
const Waiting = Schema.Struct({ reason: text, message: text })
const ContainerStatus = Schema.Struct({ state: optional(Schema.Struct({ waiting: optional(Waiting) })) })
const Pod = Schema.Struct({
  metadata: Schema.Struct({ ownerReferences: listOf(Schema.Struct({ kind: Schema.String, name: Schema.String })) }),
  spec: Schema.Struct({
    nodeName: text,
    // A pod of a DaemonSet names its node here until it is scheduled.
    affinity: optional(Schema.Struct({
      nodeAffinity: optional(Schema.Struct({
        requiredDuringSchedulingIgnoredDuringExecution: optional(Schema.Struct({
          nodeSelectorTerms: listOf(Schema.Struct({
            matchFields: listOf(Schema.Struct({ key: Schema.String, values: listOf(Schema.String) }))
          }))
        }))
      }))
    }))
  }),
  status: optional(Schema.Struct({
    phase: text,
    conditions: listOf(Condition),
    initContainerStatuses: listOf(ContainerStatus),
    containerStatuses: listOf(ContainerStatus)
  }))
})
type Pod = typeof Pod.Type

const Event = Schema.Struct({
  involvedObject: Schema.Struct({ name: text, fieldPath: text }),
  source: optional(Schema.Struct({ host: text })),
  message: text
})

const nodeOf = ({ spec }: Pod): string | undefined =>
  spec.nodeName ??
    spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms
      ?.flatMap(({ matchFields = [] }) => matchFields)
      .find(({ key }) => key === "metadata.name")?.values?.[0]

const isOf = ({ metadata }: Pod, daemonSet: string) =>
  metadata.ownerReferences?.some(({ kind, name }) => kind === "DaemonSet" && name === daemonSet) ?? false

const isReady = ({ status }: Pod) =>
  status?.conditions?.some(({ status, type }) => type === "Ready" && status === "True") ?? false

/** Why a pod is not ready, as precisely as is known. */
const reasonOf = ({ status }: Pod): string => {
  const waiting = [...status?.initContainerStatuses ?? [], ...status?.containerStatuses ?? []]
    .flatMap(({ state }) => state?.waiting ?? [])
    .find(({ reason }) => reason !== "PodInitializing" && reason !== "ContainerCreating")
  const unscheduled = status?.conditions?.find(({ status, type }) => type === "PodScheduled" && status === "False")
  const known = waiting ?? unscheduled
  return known === undefined
    ? `its cleanup pod is ${status?.phase ?? "not started"}`
    : [known.reason, known.message].filter((part) => part !== undefined && part !== "").join(": ").slice(0, 300)
}

/** Reads objects of one namespace. */
const readerOf = (client: ApiClient, namespace: string) => {
  const get = (path: string): Effect.Effect<Answer, SurveyFailed> =>
    client.request({ method: "GET", path }, deadline).pipe(
      Effect.mapError(({ message }: ApiUnreachable | ClusterAccessInvalid) => new SurveyFailed({ reason: message })),
      Effect.filterOrFail(
        ({ status }) => status === 200,
        (answer) => new SurveyFailed({ reason: unexpected(answer, path) })
      )
    )
  const decode = <A>(schema: Schema.Codec<A, unknown>, body: string) =>
    Schema.decodeEffect(Schema.fromJsonString(schema))(body).pipe(
      Effect.mapError(({ message }) =>
        new SurveyFailed({ reason: `the API server's answer cannot be understood: ${message}` })
      )
    )
  const inNamespace = `namespaces/${encodeURIComponent(namespace)}`

  /** A DaemonSet, and the time of the API server at which it was read. */
  const daemonSet = Effect.fnUntraced(function*(name: string) {
    const { body, headers } = yield* get(`/apis/apps/v1/${inNamespace}/daemonsets/${encodeURIComponent(name)}`)
    return { ...yield* decode(DaemonSet, body), readAt: Date.parse(String(headers["date"])) }
  })

  /** All items of a list, read a page at a time. */
  const list = Effect.fnUntraced(function*<A>(item: Schema.Codec<A, unknown>, resource: string, fields = "") {
    const page = Schema.Struct({
      items: Schema.Array(item),
      metadata: optional(Schema.Struct({ continue: text }))
    })
    const items: Array<A> = []
    let next: string | undefined
    do {
      const query = new URLSearchParams({ limit: String(pageSize) })
      if (fields !== "") query.set("fieldSelector", fields)
      if (next !== undefined) query.set("continue", next)
      const { body } = yield* get(`/api/v1/${inNamespace}/${resource}?${query.toString()}`)
      const decoded = yield* decode(page, body)
      items.push(...decoded.items)
      next = decoded.metadata?.continue || undefined
    } while (next !== undefined)
    return items
  })
  return { daemonSet, list }
}

/** The progress and the survey, read anew each time they are run. */
export const make = ({ client, daemonSet, mirrorDaemonSet, namespace }: SurveyOptions) => {
  const reader = readerOf(client, namespace)

  const progress = Effect.gen(function*() {
    const { metadata, readAt, status } = yield* reader.daemonSet(daemonSet)
    return {
      wanted: status.desiredNumberScheduled,
      ready: status.numberReady,
      current: (status.observedGeneration ?? 0) >= (metadata.generation ?? 1),
      age: Duration.millis(Math.max(0, readAt - Date.parse(metadata.creationTimestamp)) || 0)
    } satisfies Progress
  })

  /** Nodes on which the kubelet has stopped a mirror recently: such events outlive the mirrors' pods. */
  const nodesOfStopped = Effect.map(
    reader.list(Event, "events", "reason=Killing"),
    (events) =>
      events.flatMap(({ involvedObject: { fieldPath, name = "" }, source }) =>
        fieldPath === "spec.containers{registry}" && name.replace(/-[^-]*$/, "") === mirrorDaemonSet
          ? source?.host ?? []
          : []
      )
  )

  const survey = Effect.gen(function*() {
    const pods = yield* reader.list(Pod, "pods")
    const cleanups = pods.filter((pod) => isOf(pod, daemonSet))
    const restored = new Set(cleanups.filter(isReady).flatMap((pod) => nodeOf(pod) ?? []))
    const refusals = yield* reader.list(Event, "events", `reason=FailedCreate,involvedObject.name=${daemonSet}`)
    const refusal = (refusals.at(-1)?.message ?? "").replace("(combined from similar events): ", "")
    const left = new Map<string, string>()
    const mirrors = pods.filter((pod) => isOf(pod, mirrorDaemonSet)).flatMap((pod) => nodeOf(pod) ?? [])
    const without = refusal === "" ? "it has no cleanup pod" : "its cleanup pod was refused"
    // Refused pods name no node, so events must. Events are kept for an hour: some of those nodes may be gone.
    const stopped = refusal === "" ? [] : yield* nodesOfStopped
    for (const node of [...mirrors, ...stopped]) left.set(node, without)
    for (const pod of cleanups) left.set(nodeOf(pod) ?? "a node without a name", reasonOf(pod))
    for (const node of restored) left.delete(node)
    return {
      restored: [...restored].toSorted(),
      left: [...left].map(([node, reason]) => ({ node, reason })).toSorted((a, b) => a.node < b.node ? -1 : 1),
      refusal
    } satisfies Survey
  })

  return { progress, survey }
}
