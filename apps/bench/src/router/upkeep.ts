/** Measures the CPU that records cost while nothing is pulled: for providing a few keys, and for refreshing many. */
import type { Bar } from "../Bar.ts"
import { percentile } from "../Statistics.ts"
import { sleep } from "../Waiting.ts"
import * as Cluster from "./Cluster.ts"
import { joined } from "./faults.ts"

const few = 1000
const many = 10_000
const rounds = 3
/** Much shorter than the real 9 minutes, so that its cost stands out from that of a quiet cluster. */
const refreshMillis = 12_000
const realRefreshMillis = 9 * 60_000
/** Each key is due after 0.8 to 1.0 of the interval. */
const meanRefreshMillis = 0.9 * refreshMillis
const windowMillis = 60_000

export const upkeep = async (count: number, port: number): Promise<ReadonlyArray<Bar>> => {
  const cluster = await Cluster.start({
    implementation: "spegel-ts",
    addresses: Cluster.loopbackAddresses(count),
    port,
    nodesPerProcess: 10,
    refreshMillis
  })
  /** CPU of the whole cluster while `work` runs. */
  const cpuOf = async (work: () => Promise<unknown>): Promise<number> => {
    const before = await cluster.usage()
    await work()
    return (await cluster.usage()).cpuMillis - before.cpuMillis
  }
  try {
    await joined(cluster)
    const idle = await cpuOf(() => sleep(windowMillis))
    const holder = cluster.nodes[2]
    const providing: Array<number> = []
    for (let round = 0; round < rounds; round++) {
      const keys = Array.from({ length: few }, (_, at) => `few-${round}:${at}`)
      providing.push(await cpuOf(async () => holder?.provide(keys)))
      await holder?.withdraw(keys)
      await sleep(1000)
    }
    await holder?.provide(Array.from({ length: many }, (_, at) => `many:${at}`))
    const refreshing = await cpuOf(() => sleep(windowMillis)) - idle
    return [
      {
        name: `${few} keys provided with ${count} nodes, all of their CPU`,
        value: percentile(providing, 0.5) / few,
        bound: 0.7,
        unit: "ms a key"
      },
      {
        name: `${many} keys refreshed every 9 min, all nodes`,
        value: refreshing / (windowMillis / meanRefreshMillis) / realRefreshMillis * 100,
        bound: 1,
        unit: "% of a core"
      }
    ]
  } finally {
    await cluster.stop()
  }
}
