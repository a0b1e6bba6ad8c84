import { assert, describe, it } from "@effect/vitest"
import * as CleanupWait from "@spegel-ts/spegel/cleanup/CleanupWait"
import * as Kubeconfig from "@spegel-ts/testing/kubernetes/Kubeconfig"
import { Duration, Effect, Fiber, Option } from "effect"
import { createServer } from "node:http"

interface Cluster {
  wanted: number
  ready: number
  /** Seconds since the DaemonSet was made. */
  age: number
  pods: ReadonlyArray<object>
  events: ReadonlyArray<Readonly<Record<string, unknown>>>
  /** Answered in place of all else where it is not 200. */
  status: number
  readonly asked: Array<string>
}

const pod = (daemonSet: string, node: string, status: object, scheduled = true) => ({
  metadata: { name: `${daemonSet}-abcde`, ownerReferences: [{ kind: "DaemonSet", name: daemonSet }] },
  spec: scheduled ? { nodeName: node } : {
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [{ matchFields: [{ key: "metadata.name", operator: "In", values: [node] }] }]
        }
      }
    }
  },
  status
})
const ready = (node: string) =>
  pod("s-cleanup", node, { phase: "Running", conditions: [{ type: "Ready", status: "True" }] })
const pending = (node: string) => pod("s-cleanup", node, { phase: "Pending" })

/** The part of a Kubernetes API that is asked, with lists a page at a time. */
const start = Effect.fnUntraced(function*(initial: Partial<Cluster>) {
  const cluster: Cluster = { wanted: 0, ready: 0, age: 0, pods: [], events: [], status: 200, asked: [], ...initial }
  const list = (items: ReadonlyArray<unknown>, query: URLSearchParams) => {
    const from = Number(query.get("continue") ?? 0)
    const to = from + Number(query.get("limit"))
    return { items: items.slice(from, to), metadata: to < items.length ? { continue: String(to) } : {} }
  }
  const answer = ({ pathname, searchParams }: URL) => {
    const wanted = new URLSearchParams(searchParams.get("fieldSelector")?.replaceAll(",", "&"))
    switch (pathname) {
      case "/apis/apps/v1/namespaces/mirrors/daemonsets/s-cleanup":
        return {
          metadata: { generation: 1, creationTimestamp: new Date(Date.now() - cluster.age * 1000).toISOString() },
          status: { observedGeneration: 1, desiredNumberScheduled: cluster.wanted, numberReady: cluster.ready }
        }
      case "/api/v1/namespaces/mirrors/pods":
        return list(cluster.pods, searchParams)
      case "/api/v1/namespaces/mirrors/events":
        return list(cluster.events.filter(({ reason }) => reason === wanted.get("reason")), searchParams)
      default:
        return undefined
    }
  }
  const server = createServer((request, response) => {
    cluster.asked.push(request.url ?? "")
    const found = answer(new URL(request.url ?? "", "http://api"))
    const status = found === undefined ? 404 : cluster.status
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(found ?? {}))
  })
  const kubeconfig = yield* Kubeconfig.serve(server)
  const wait = (timeout: Option.Option<Duration.Duration>) =>
    CleanupWait.wait({
      kubeconfig: Option.some(kubeconfig),
      environment: {},
      namespace: "mirrors",
      daemonSet: "s-cleanup",
      mirrorDaemonSet: "s",
      threshold: 3,
      period: Duration.millis(10),
      timeout
    })
  return { cluster, wait }
})

const hour = Option.some(Duration.hours(1))

describe("CleanupWait", () => {
  it.live("waits until all nodes are ready for some rounds, whatever the API server does meanwhile", () =>
    Effect.gen(function*() {
      const { cluster, wait } = yield* start({ wanted: 2, ready: 1, pods: [ready("a"), pending("b")], status: 503 })
      const waiting = yield* Effect.forkChild(wait(hour))
      const until = (asked: number): Effect.Effect<void> =>
        Effect.suspend(() => cluster.asked.length >= asked ? Effect.void : Effect.delay(until(asked), "10 millis"))
      yield* until(3)
      cluster.status = 200
      yield* until(10)
      assert.isUndefined(waiting.pollUnsafe())
      cluster.ready = 2
      cluster.pods = [ready("a"), ready("b")]
      yield* Fiber.join(waiting)
    }).pipe(Effect.scoped))

  const failure = (initial: Partial<Cluster>) =>
    Effect.gen(function*() {
      const { cluster, wait } = yield* start({ age: 3601, ...initial })
      const { message } = yield* Effect.flip(wait(hour))
      return { cluster, message }
    })

  it.live("gives up when the DaemonSet is old enough, and names what is left with the reason", () =>
    Effect.gen(function*() {
      const { message } = yield* failure({
        wanted: 6,
        ready: 1,
        pods: [
          ready("a"),
          pending("b"),
          pod("s-cleanup", "c", {
            phase: "Pending",
            containerStatuses: [{ state: { waiting: { reason: "ImagePullBackOff", message: "no such image" } } }]
          }),
          pod("s-cleanup", "d", {
            phase: "Pending",
            conditions: [{ type: "PodScheduled", status: "False", reason: "Unschedulable", message: "no memory" }]
          }, false),
          // A mirror that its dead node never lets go, and another program's pod.
          pod("s", "e", { phase: "Running", conditions: [{ type: "Ready", status: "True" }] }),
          pod("other", "z", { phase: "Running" })
        ]
      })
      assert.include(
        message,
        "not restored: b (its cleanup pod is Pending), c (ImagePullBackOff: no such image), d (Unschedulable: no memory), " +
          "e (it has no cleanup pod), 1 node without a cleanup pod."
      )
      assert.include(message, "spegel cleanup")
    }).pipe(Effect.scoped))

  it.live("knows from events where mirrors were, and why no pod could be made", () =>
    Effect.gen(function*() {
      const killed = (name: string, host: string, fieldPath = "spec.containers{registry}") => ({
        reason: "Killing",
        involvedObject: { name, fieldPath },
        source: { host },
        message: "Stopping container registry"
      })
      const { message } = yield* failure({
        wanted: 2,
        events: [
          killed("s-x7k2p", "a"),
          killed("s-9dh4w", "b"),
          killed("s-other-9dh4w", "z"),
          killed("s-9dh4w", "z", "spec.containers{sidecar}"),
          {
            reason: "FailedCreate",
            involvedObject: { name: "s-cleanup" },
            message: `Error creating: pods "s-cleanup-" is forbidden: violates PodSecurity "baseline:latest": hostPath`
          }
        ]
      })
      assert.include(
        message,
        "not restored: a (its cleanup pod was refused), b (its cleanup pod was refused); Error creating"
      )
      assert.include(message, "pod-security.kubernetes.io/enforce=privileged")
    }).pipe(Effect.scoped))

  it.live("says so where the API server tells nothing, and where nobody counts nodes", () =>
    Effect.gen(function*() {
      const { cluster, wait } = yield* start({ status: 403 })
      const { message } = yield* Effect.flip(wait(Option.some(Duration.millis(100))))
      assert.match(message, /it is not known which nodes were restored: the API server answered 403/)
      cluster.status = 200
      cluster.wanted = 1
      cluster.age = 3601
      assert.include((yield* Effect.flip(wait(hour))).message, "not restored: 1 node without a cleanup pod")
    }).pipe(Effect.scoped))

  it.live("asks for long lists a page at a time", () =>
    Effect.gen(function*() {
      const names = Array.from({ length: 130 }, (_, index) => `node-${String(index).padStart(3, "0")}`)
      const { cluster, message } = yield* failure({ wanted: 130, pods: names.map(pending) })
      assert.isAtLeast(cluster.asked.filter((url) => url.includes("/pods?")).length, 4)
      assert.include(message, "node-099 (")
      assert.include(message, "and 30 more")
      assert.notInclude(message, "node-100")
    }).pipe(Effect.scoped))
})
