/** Measures a cluster of either router: joining, providing, lookups and misses, at rest and under load. */
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
  /** Until every node knows every other; null if that took too long. */
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
  /** How many nodes provide `keysToProvide` keys each before anything is measured. */
  readonly fillers: number
  readonly keysPerSecondUnderLoad: number
  readonly joinLimitMillis: number
}

/** A key and its provider, which would not find itself. */
interface Held {
  readonly key: string
  readonly holder: Cluster.ClusterNode
}

const replication = 20
/** A cluster is quiet when all its processes used no more CPU than this in a second. */
const quietCpuMillis = 200
const quietLimitMillis = 90_000

const percentiles = (millis: ReadonlyArray<number>): Percentiles => {
  const at = (share: number) => Number(percentile(millis.map(Math.abs), share).toFixed(2))
  return { p50: at(0.5), p99: at(0.99) }
}

const median = (values: ReadonlyArray<number>): number => percentile(values, 0.5)

const medians = (rounds: ReadonlyArray<Percentiles>): Percentiles => ({
  p50: median(rounds.map(({ p50 }) => p50)),
  p99: median(rounds.map(({ p99 }) => p99))
})

/** Keys that are the same in each run and differ between batches. */
const keys = (batch: string, count: number) => Array.from({ length: count }, (_, index) => `bench/${batch}:${index}`)

/** Waits until the cluster has settled: connections are still opened for a while after all nodes know each other. */
export const quiet = async (cluster: Cluster.Cluster): Promise<void> => {
  const begun = performance.now()
  let used = Infinity
  while (used > quietCpuMillis && performance.now() - begun < quietLimitMillis) {
    const { cpuMillis } = await cluster.usage()
    await sleep(1000)
    used = (await cluster.usage()).cpuMillis - cpuMillis
  }
}

/** Joins, fills the cluster with records, provides, and looks up. */
export const measure = async (
  implementation: Implementation,
  count: number,
  port: number,
  plan: Plan
): Promise<Figures> => {
  const addresses = Cluster.loopbackAddresses(count)
  const cluster = await Cluster.start({ implementation, addresses, port, nodesPerProcess: 10 })
  try {
    const measurement = new Measurement(cluster, plan)
    const joinMs = await measurement.join()
    await quiet(cluster)
    await measurement.fill()
    const provide = await measurement.provide()
    const lookups = await measurement.lookUpInRounds()
    const { rssBytes } = await cluster.usage()
    return {
      nodes: count,
      ...lookups,
      joinMs,
      provide,
      rssMiBPerNode: Number((rssBytes / count / 2 ** 20).toFixed(1)),
      failed: measurement.failed
    }
  } finally {
    await cluster.stop()
  }
}

class Measurement {
  /** Lookups of provided keys that found nobody. */
  failed = 0
  readonly #cluster: Cluster.Cluster
  readonly #plan: Plan
  readonly #positions: ReadonlyArray<{ readonly node: Cluster.ClusterNode; readonly position: Uint8Array }>
  readonly #held: Array<Held> = []

  constructor(cluster: Cluster.Cluster, plan: Plan) {
    this.#cluster = cluster
    this.#plan = plan
    this.#positions = cluster.nodes.map((node) => ({ node, position: positionOf(base58btc.baseDecode(node.id)) }))
  }

  /** Milliseconds until all nodes know each other; null if that takes too long. */
  async join(): Promise<number | null> {
    const { nodes, peers, startedAt } = this.#cluster
    while (performance.now() - startedAt < this.#plan.joinLimitMillis) {
      if ((await peers()).every((known) => known >= nodes.length - 1)) return Math.round(performance.now() - startedAt)
      await sleep(nodes.length * 5)
    }
    return null
  }

  async fill(): Promise<void> {
    for (let filler = 0; filler < this.#plan.fillers; filler++) {
      await this.#provide(this.#nodeAt(filler * 7 + 1), keys(`fill-${filler}`, this.#plan.keysToProvide))
    }
  }

  async provide(): Promise<Figures["provide"]> {
    const wallMs: Array<number> = []
    const cpuMs: Array<number> = []
    for (let round = 0; round < this.#plan.rounds; round++) {
      const before = await this.#cluster.usage()
      const begun = performance.now()
      await this.#provide(this.#nodeAt(round * 5 + 2), keys(`provide-${round}`, this.#plan.keysToProvide))
      wallMs.push(performance.now() - begun)
      cpuMs.push((await this.#cluster.usage()).cpuMillis - before.cpuMillis)
    }
    return {
      keys: this.#plan.keysToProvide,
      wallMs: Math.round(median(wallMs)),
      clusterCpuMsPerKey: Number((median(cpuMs) / this.#plan.keysToProvide).toFixed(3))
    }
  }

  /** Each figure is the median of the rounds. */
  async lookUpInRounds() {
    await this.#lookUp(99, 1)
    const first: Array<Percentiles> = []
    const ten: Array<Percentiles> = []
    const miss: Array<Percentiles> = []
    const load: Array<Percentiles> = []
    for (let round = 0; round < this.#plan.rounds; round++) {
      first.push(await this.#lookUp(round, 1))
      ten.push(await this.#lookUp(round + 10, 10))
      miss.push(await this.#miss(round))
      load.push(await this.#lookUpUnderLoad(round))
    }
    return {
      firstProviderMs: medians(first),
      concurrent10Ms: medians(ten),
      missMs: medians(miss),
      underLoadMs: medians(load)
    }
  }

  async #provide(holder: Cluster.ClusterNode, batch: ReadonlyArray<string>): Promise<void> {
    await holder.provide(batch)
    this.#held.push(...batch.map((key) => ({ key, holder })))
  }

  /** Looks keys up, each from a node that does not store it. With up to 20 nodes, every node stores every record. */
  async #lookUp(round: number, concurrency: number): Promise<Percentiles> {
    const byAsker = new Map<Cluster.ClusterNode, Array<string>>()
    for (let index = 0; index < this.#plan.lookups; index++) {
      const wanted = this.#held[(index * 7919 + round * 104_729) % this.#held.length] as Held
      const askers = this.#askersOf(wanted)
      const others = this.#cluster.nodes.filter((node) => node !== wanted.holder)
      const asker = askers[index % Math.max(1, Math.min(askers.length, 3))] ?? others[index % others.length]
      if (asker !== undefined) byAsker.set(asker, [...byAsker.get(asker) ?? [], wanted.key])
    }
    const millis: Array<number> = []
    for (const [asker, batch] of byAsker) millis.push(...await asker.find(batch, concurrency))
    this.failed += millis.filter((took) => took < 0).length
    return percentiles(millis)
  }

  async #miss(round: number): Promise<Percentiles> {
    const millis: Array<number> = []
    for (let index = 0; index < 5; index++) {
      const absent = keys(`absent-${round}-${index}`, Math.ceil(this.#plan.lookups / 5))
      millis.push(...await this.#nodeAt(index * 3 + round).find(absent, 1))
    }
    return percentiles(millis)
  }

  /** Looks up while another node provides a batch of keys every 100 ms. */
  async #lookUpUnderLoad(round: number): Promise<Percentiles> {
    const batchSize = Math.max(1, Math.ceil(this.#plan.keysPerSecondUnderLoad / 10))
    const load = { running: true }
    const provideBatches = async () => {
      for (let batch = 0; load.running; batch++) {
        const begun = performance.now()
        await this.#nodeAt(3).provide(keys(`load-${round}-${batch}`, batchSize))
        await sleep(Math.max(0, 100 - (performance.now() - begun)))
      }
    }
    const providing = provideBatches()
    const result = await this.#lookUp(round + 100, 1)
    load.running = false
    await providing
    return result
  }

  /** Nodes that neither store nor provide a key. */
  #askersOf({ holder, key }: Held): ReadonlyArray<Cluster.ClusterNode> {
    const position = positionOf(ContentKey.toDhtKey(ContentKey.make(key)))
    const keepers = new Set(closest(position, this.#positions, replication + 1))
    return this.#positions.filter((at) => !keepers.has(at) && at.node !== holder).map(({ node }) => node)
  }

  #nodeAt(index: number): Cluster.ClusterNode {
    return this.#cluster.nodes[index % this.#cluster.nodes.length] as Cluster.ClusterNode
  }
}
