/** Waits until Kubernetes says that all nodes are clean, or until a time limit; then names those that are and those that are not. */
import * as ApiClient from "@spegel-ts/kubernetes/ApiClient"
import * as ClusterAccess from "@spegel-ts/kubernetes/ClusterAccess"
import { Clock, Console, Data, Duration, Effect, Option, Schedule } from "effect"
import * as CleanupSurvey from "./CleanupSurvey.ts"

/** Some nodes were not cleaned in time, or that is not known. `nodes` names them, with the known reasons. */
export class NodesLeft extends Data.TaggedError("NodesLeft")<{
  readonly nodes: string
  readonly advice: string
}> {
  override get message() {
    return `${this.nodes}. ${this.advice}`
  }
}

/** What to wait for, and how long. */
export interface WaitOptions {
  /** How to reach the API server; none for this pod's service account. */
  readonly kubeconfig: Option.Option<string>
  readonly environment: NodeJS.ProcessEnv
  readonly namespace: string
  readonly daemonSet: string
  readonly mirrorDaemonSet: string
  /** How many rounds in a row must find all nodes clean. */
  readonly threshold: number
  /** The time between two rounds. */
  readonly period: Duration.Duration
  /**
   * How long after the creation of the DaemonSet it gives up, so that a pod which replaces another does not start over. None
   * for never.
   */
  readonly timeout: Option.Option<Duration.Duration>
}

const maxNames = 100

/** Names with commas between them; only the first ones where there are very many. */
const join = (names: ReadonlyArray<string>): string =>
  names.length <= maxNames
    ? names.join(", ")
    : `${names.slice(0, maxNames).join(", ")} and ${names.length - maxNames} more`

const nodes = (count: number) => count === 1 ? "1 node" : `${count} nodes`

const advice =
  "There containerd still asks for the mirror first, finds none and goes to the upstream registry: pulls work. " +
  "A node that does not come back needs nothing. On another run `spegel cleanup`, or remove what the mirror wrote to the " +
  "hosts.toml files, or install the chart again when all nodes are there, and uninstall it"

const privileged = "Pod Security refuses pods that mount directories of the node: label the namespace " +
  "pod-security.kubernetes.io/enforce=privileged, install the chart again, and uninstall it. "

const adviceFor = ({ refusal }: CleanupSurvey.Survey) =>
  refusal.includes("violates PodSecurity") ? privileged + advice : advice

/** The nodes that are not clean. Kubernetes counts `count` of them, and may not name them all. */
const describe = ({ left, refusal }: CleanupSurvey.Survey, count: number): string => {
  const named = left.map(({ node, reason }) => `${node} (${reason})`)
  const unnamed = count > left.length ? [`${nodes(count - left.length)} without a cleanup pod`] : []
  const all = join([...named, ...unnamed]) || "all nodes, since Kubernetes has made no cleanup pods"
  return `${all}${refusal === "" ? "" : `; ${refusal}`}`
}

/** Succeeds once `threshold` rounds in a row found all nodes clean, and fails with `NodesLeft` when `timeout` is over. */
export const wait = Effect.fn("CleanupWait.wait")(function*(options: WaitOptions) {
  const { period, threshold, timeout } = options
  const client = yield* ApiClient.make(yield* ClusterAccess.make(options))
  const { progress, survey } = CleanupSurvey.make({ ...options, client })
  const started = yield* Clock.currentTimeMillis
  let passed = 0
  let missing = 0
  let told = ""
  const isOver = (age: Duration.Duration) => Option.exists(timeout, Duration.isLessThanOrEqualTo(age))

  /** Whether the wait is over, one way or the other. It logs the names of the nodes when their number has changed. */
  const round = Effect.gen(function*() {
    const { age, current, ready, wanted } = yield* progress
    missing = Math.max(0, wanted - ready)
    passed = current && missing === 0 ? passed + 1 : 0
    const state = `${ready} of ${wanted}`
    if (missing > 0 && state !== told) {
      yield* Effect.logInfo(`restored ${state} nodes; waiting for ${describe(yield* survey, missing)}`)
      told = state
    }
    return passed >= threshold || isOver(age)
  }).pipe(Effect.catchTag("SurveyFailed", ({ message }) =>
    Effect.gen(function*() {
      passed = 0
      if (message !== told) yield* Effect.logWarning(`waiting: ${message}`)
      told = message
      return isOver(Duration.millis((yield* Clock.currentTimeMillis) - started))
    })))
  yield* Effect.repeat(round, { schedule: Schedule.spaced(period), until: (over) => over })

  const found = yield* Effect.mapError(
    survey,
    ({ message }) => new NodesLeft({ nodes: `it is not known which nodes were restored: ${message}`, advice })
  )
  yield* Console.log(
    `restored ${nodes(found.restored.length)}${found.restored.length > 0 ? ": " : ""}${join(found.restored)}`
  )
  if (passed >= threshold) return
  return yield* new NodesLeft({ nodes: `not restored: ${describe(found, missing)}`, advice: adviceFor(found) })
}, Effect.scoped)
