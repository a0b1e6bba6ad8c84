/** What is measured of a cluster, and how. */
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { closest, positionOf } from "@spegel-ts/router/internal/dht/Distance"
import { base58btc } from "multiformats/bases/base58"
import { percentile } from "../Statistics.ts"
import { sleep } from "../Waiting.ts"
import * as Cluster from "./Cluster.ts"
import type { Implementation } from "./NodeUnderTest.ts"

export interface Percentiles {
  readonly p50: number
  readonly p99: number
}

export interface Figures {
  readonly nodes: number
  readonly firstProviderMs: Percentiles
  readonly concurrent10Ms: Percentiles
  readonly missMs: Percentiles
  readonly underLoadMs: Percentiles
  /** Until every node knows every other; null where that was not reached in time. */
  readonly joinMs: number | null
  readonly provide: { readonly keys: number; readonly wallMs: number; readonly clusterCpuMsPerKey: number }
  readonly rssMiBPerNode: number
  /** Lookups of provided keys that found nobody. */
  readonly failed: number
}

export interface Plan {
  readonly rounds: number
  readonly lookups: number
  readonly keysToProvide: number
  /** Providers that fill the cluster before anything is measured, with `keysToProvide` keys each. */
  readonly fillers: number
  readonly keysPerSecondUnderLoad: number
  readonly joinLimitMillis: number
}

/** A key, and who provides it: that node would not find itself. */
interface Held {
  readonly key: string
  readonly holder: Cluster.ClusterNode
}

const replication = 20
/** A cluster is quiet when it used no more than this in a second. */
const quietCpuMillis = 200
const quietLimitMillis = 90_000

const percentiles = (millis: ReadonlyArray<number>): Percentiles => {
  const at = (share: number) => Number(percentile(millis.map(Math.abs), share).toFixed(2))
  return { p50: at(0.5), p99: at(0.99) }
}

const median = (values: ReadonlyArray<number>): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0

const medians = (rounds: ReadonlyArray<Percentiles>): Percentiles => ({
  p50: median(rounds.map(({ p50 }) => p50)),
  p99: median(rounds.map(({ p99 }) => p99))
})

/** The order of the generator, so that keys are the same in each run and differ in each batch. */
const keys = (batch: string, count: number) => Array.from({ length: count }, (_, index) => `bench/${batch}:${index}`)

/** Connections are still being made for a while after everybody is known: what is measured is a cluster that has settled. */
export const quiet = async (cluster: Cluster.Cluster): Promise<void> => {
  const begun = performance.now()
  let used = Infinity
  while (used > quietCpuMillis && performance.now() - begun < quietLimitMillis) {
    const { cpuMillis } = await cluster.usage()
    await sleep(1000)
    used = (await cluster.usage()).cpuMillis - cpuMillis
  }
}

/** Joins, fills, provides, looks up. Lookups are asked of nodes that do not keep the record themselves. */
export const measure = async (
  implementation: Implementation,
  count: number,
  port: number,
  plan: Plan
): Promise<Figures> => {
  const cluster = await Cluster.start({
    implementation,
    addresses: Cluster.loopbackAddresses(count),
    port,
    nodesPerProcess: 10
  })
  const started = cluster.startedAt
  try {
    let joinMs: number | null = null
    while (joinMs === null && performance.now() - started < plan.joinLimitMillis) {
      if ((await cluster.peers()).every((peers) => peers >= count - 1)) joinMs = Math.round(performance.now() - started)
      else await sleep(count * 5)
    }
    await quiet(cluster)

    const positions = cluster.nodes.map((node) => ({ node, position: positionOf(base58btc.baseDecode(node.id)) }))
    const askersOf = ({ holder, key }: Held): ReadonlyArray<Cluster.ClusterNode> => {
      const keepers = new Set(
        closest(positionOf(ContentKey.toDhtKey(ContentKey.make(key))), positions, replication + 1)
      )
      return positions.filter((at) => !keepers.has(at) && at.node !== holder).map(({ node }) => node)
    }
    const nodeAt = (index: number) => cluster.nodes[index % cluster.nodes.length] as Cluster.ClusterNode

    const held: Array<Held> = []
    for (let filler = 0; filler < plan.fillers; filler++) {
      const batch = keys(`fill-${filler}`, plan.keysToProvide)
      const holder = nodeAt(filler * 7 + 1)
      held.push(...batch.map((key) => ({ key, holder })))
      await holder.provide(batch)
    }

    const provided: Array<{ wallMs: number; cpuMs: number }> = []
    for (let round = 0; round < plan.rounds; round++) {
      const batch = keys(`provide-${round}`, plan.keysToProvide)
      const before = await cluster.usage()
      const begun = performance.now()
      const holder = nodeAt(round * 5 + 2)
      await holder.provide(batch)
      const wallMs = performance.now() - begun
      provided.push({ wallMs, cpuMs: (await cluster.usage()).cpuMillis - before.cpuMillis })
      held.push(...batch.map((key) => ({ key, holder })))
    }

    let failed = 0
    /** Looks keys up, each asked of a node that does not keep it; with up to 20 nodes every node keeps every record. */
    const lookUp = async (round: number, concurrency: number, lookups: number) => {
      const byAsker = new Map<Cluster.ClusterNode, Array<string>>()
      for (let index = 0; index < lookups; index++) {
        const wanted = held[(index * 7919 + round * 104_729) % held.length] as Held
        const askers = askersOf(wanted)
        const others = cluster.nodes.filter((node) => node !== wanted.holder)
        const asker = askers[index % Math.max(1, Math.min(askers.length, 3))] ?? others[index % others.length]
        if (asker !== undefined) byAsker.set(asker, [...byAsker.get(asker) ?? [], wanted.key])
      }
      const millis: Array<number> = []
      for (const [asker, batch] of byAsker) millis.push(...await asker.find(batch, concurrency))
      failed += millis.filter((took) => took < 0).length
      return percentiles(millis)
    }
    const miss = async (round: number) => {
      const millis: Array<number> = []
      for (let index = 0; index < 5; index++) {
        millis.push(
          ...await nodeAt(index * 3 + round).find(keys(`absent-${round}-${index}`, Math.ceil(plan.lookups / 5)), 1)
        )
      }
      return percentiles(millis)
    }
    const underLoad = async (round: number) => {
      const load = { running: true }
      const loaded = (async () => {
        for (let second = 0; load.running; second++) {
          const begun = performance.now()
          await nodeAt(3).provide(
            keys(`load-${round}-${second}`, Math.max(1, Math.ceil(plan.keysPerSecondUnderLoad / 10)))
          )
          await sleep(Math.max(0, 100 - (performance.now() - begun)))
        }
      })()
      const result = await lookUp(round + 100, 1, plan.lookups)
      load.running = false
      await loaded
      return result
    }

    await lookUp(99, 1, plan.lookups)
    const rounds = {
      first: [] as Array<Percentiles>,
      ten: [] as Array<Percentiles>,
      miss: [] as Array<Percentiles>,
      load: [] as Array<Percentiles>
    }
    for (let round = 0; round < plan.rounds; round++) {
      rounds.first.push(await lookUp(round, 1, plan.lookups))
      rounds.ten.push(await lookUp(round + 10, 10, plan.lookups))
      rounds.miss.push(await miss(round))
      rounds.load.push(await underLoad(round))
    }
    return {
      nodes: count,
      firstProviderMs: medians(rounds.first),
      concurrent10Ms: medians(rounds.ten),
      missMs: medians(rounds.miss),
      underLoadMs: medians(rounds.load),
      joinMs,
      provide: {
        keys: plan.keysToProvide,
        wallMs: Math.round(median(provided.map(({ wallMs }) => wallMs))),
        clusterCpuMsPerKey: Number((median(provided.map(({ cpuMs }) => cpuMs)) / plan.keysToProvide).toFixed(3))
      },
      rssMiBPerNode: Number(((await cluster.usage()).rssBytes / count / 2 ** 20).toFixed(1)),
      failed
    }
  } finally {
    await cluster.stop()
  }
}
