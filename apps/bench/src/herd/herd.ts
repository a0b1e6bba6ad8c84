/**
 * Many nodes pull a new image at once, or within a few seconds, with real containerd daemons on hosts with links of limited speed:
 * what comes from upstream, and when the last node has the image.
 */
import * as ClusterKeys from "@spegel-ts/testing/ClusterKeys"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Scope } from "effect"
import type { ChildProcess } from "node:child_process"
import { join } from "node:path"
import * as Fault from "./Fault.ts"
import * as HerdNode from "./HerdNode.ts"
import * as HerdUpstream from "./HerdUpstream.ts"
import * as Host from "./Host.ts"
import * as Pulls from "./Pulls.ts"

const kilobyte = 1000
const mebibyte = 1024 ** 2

export interface Plan {
  readonly nodes: number
  readonly layers: number
  /** In MiB. */
  readonly layerSize: number
  /** In KB/s, as the next one. */
  readonly upstreamSpeed: number
  readonly linkSpeed: number
  /** Milliseconds until the registry sends the first byte of a blob. */
  readonly firstByte: number
  /** More flags of the mirrors. */
  readonly flags: ReadonlyArray<string>
  /** The directory for the logs of the mirrors. */
  readonly logs: string
}

type NodesOptions = Pick<Plan, "nodes" | "upstreamSpeed" | "linkSpeed"> & Partial<Pick<Plan, "firstByte">>

/** How many seconds the starts of the nodes are spread over; `control`: one node has the image before the others begin. */
export type Scenario = number | "alone" | "control" | Fault.FaultName | "no credentials"

export interface Result {
  readonly scenario: Scenario
  /** Bytes from upstream as a multiple of the image. */
  readonly copies: number
  readonly manifestGets: number
  /** For each node, from its own start to its last commit. */
  readonly seconds: ReadonlyArray<number>
  /** From the first start to the last commit of all. */
  readonly lastSeconds: number
  readonly failed: number
  /** The longest time in which a node got no byte. */
  readonly longestGap: number
  readonly samples: ReadonlyArray<Sample>
}

/** Bytes so far. */
export interface Sample {
  readonly seconds: number
  /** Sent by the registry. */
  readonly upstream: number
  /** Written by all containerd daemons. */
  readonly received: number
}

export interface Herd {
  readonly plan: Plan
  readonly nodes: ReadonlyArray<HerdNode.HerdNode>
  readonly upstream: HerdUpstream.HerdUpstream
  /** Of the last image; each run pulls another one. */
  seed: number
}

/** The mirrors of all nodes, which end with the scope. */
export interface Mirrors {
  readonly children: ReadonlyMap<HerdNode.HerdNode, ChildProcess>
  /** Starts that of a node again. */
  readonly restart: (node: HerdNode.HerdNode) => Effect.Effect<unknown, unknown>
}

const sampleEvery = "100 millis"

/** Nodes without mirrors, and their registry. Node after node has the next version of containerd. */
export const startNodes = Effect.fnUntraced(
  function*({ firstByte = 0, linkSpeed, nodes, upstreamSpeed }: NodesOptions) {
    yield* Host.joinBridge
    const upstream = yield* HerdUpstream.start(upstreamSpeed * kilobyte, firstByte)
    const key = yield* ClusterKeys.writeTo(join(yield* temporary, "cluster-key"))
    const versions = yield* Effect.forEach(ContainerdPackages.versions, ContainerdPackages.fetch)
    const programsOfNodes = Array.from({ length: nodes }, () => versions).flat().slice(0, nodes)
    const bootstrap = programsOfNodes.slice(0, 2).map((_, index) => Host.addressOf(index + 1))
    const options = { key, bootstrap, upstream: upstream.name, link: linkSpeed * kilobyte }
    const started = yield* Effect.forEach(
      programsOfNodes,
      (programs, index) => HerdNode.start(index + 1, { programs, ...options })
    )
    return { upstream, nodes: started }
  }
)

export const make = Effect.fnUntraced(function*(plan: Plan) {
  const { nodes, upstream } = yield* startNodes(plan)
  return { plan, nodes, upstream, seed: Math.floor(Date.now() / 1000) % 100_000 } satisfies Herd
})

export const startMirrors = Effect.fnUntraced(function*({ nodes, plan }: Herd, mode: string) {
  const scope = yield* Effect.scope
  const start = (node: HerdNode.HerdNode) =>
    node.startMirror({
      flags: [`--in-progress=${mode}`, ...plan.flags],
      log: join(plan.logs, `${node.name}-${mode}.log`)
    }).pipe(
      Effect.map((child) => [node, child] as const)
    )
  const children = new Map(yield* Effect.forEach(nodes, start, { concurrency: 4 }))
  return { children, restart: (node) => Effect.provideService(start(node), Scope.Scope, scope) } satisfies Mirrors
})

/** Makes all nodes whole again. */
export const repair = ({ nodes }: Herd) =>
  Effect.forEach(nodes, (node) => Effect.andThen(node.plug, node.containerd.restart), { discard: true })

export const run = Effect.fnUntraced(function*(herd: Herd, scenario: Scenario, mirrors: Mirrors) {
  const { nodes, plan, upstream } = herd
  const image = yield* upstream.push(++herd.seed, Array.from({ length: plan.layers }, () => plan.layerSize * mebibyte))
  const name = `${upstream.name}/team/app:v${herd.seed}`
  const refused = scenario === "no credentials" ? nodes.filter((_, index) => index % 2 === 0) : []
  yield* upstream.refuse(refused.map(({ address }) => address))
  if (scenario === "control") yield* holdFirst(nodes, name)
  const before = yield* upstream.counts
  const begun = performance.now()
  const samples: Array<Sample> = []
  let victim: HerdNode.HerdNode | undefined
  const watch = Effect.gen(function*() {
    const { blobBytes, byAddress } = yield* upstream.counts
    const received = yield* Effect.promise(() => Promise.all(nodes.map((node) => node.received(image))))
    const sent = blobBytes - before.blobBytes
    samples.push({
      seconds: Pulls.since(begun),
      upstream: sent,
      received: received.reduce((sum, bytes) => sum + bytes, 0)
    })
    if (!Fault.isFault(scenario) || victim !== undefined || sent < Fault.struckAfter * image.bytes) return
    victim = Fault.leaderOf(nodes, before.byAddress, byAddress)
    yield* Fault.strike(scenario, { node: victim, mirrors, upstream })
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(watch, Effect.sleep(sampleEvery))))
  const isLost = (node: HerdNode.HerdNode) => node === victim && Fault.isLost(scenario)
  const spread = typeof scenario === "number" ? scenario : 0
  const pulls = yield* Pulls.all({ nodes: pullersOf(nodes, scenario), image, name, spread, isLost, begun })
  const after = yield* upstream.counts
  yield* Effect.forEach(nodes, (node) => Effect.ignore(node.clear), { concurrency: "unbounded", discard: true })
  yield* upstream.clear
  const expected = pulls.filter(({ node }) => !isLost(node) && !refused.includes(node))
  return resultOf(scenario, expected, {
    samples,
    copies: (after.blobBytes - before.blobBytes) / image.bytes,
    manifestGets: after.manifestGets - before.manifestGets
  })
}, Effect.scoped)

const pullersOf = (nodes: Herd["nodes"], scenario: Scenario) =>
  scenario === "alone" ? nodes.slice(0, 1) : scenario === "control" ? nodes.slice(1) : nodes

const holdFirst = ([first]: Herd["nodes"], name: string) =>
  // Its records have to be where the others look for them.
  first === undefined ? Effect.void : Effect.andThen(first.pull(name), Effect.sleep("2 seconds"))

const resultOf = (
  scenario: Scenario,
  expected: ReadonlyArray<Pulls.Pulled>,
  counted: Pick<Result, "samples" | "copies" | "manifestGets">
): Result => {
  const done = expected.filter(({ isDone }) => isDone)
  return {
    scenario,
    ...counted,
    seconds: done.map(({ own }) => own),
    lastSeconds: Math.max(...done.map(({ total }) => total)),
    failed: expected.length - done.length,
    longestGap: Math.max(...done.map(({ gap }) => gap))
  }
}
