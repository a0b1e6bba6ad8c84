/** A cluster that grows, then lives with churn while keys are looked up. */
import { SimulatedNetwork, type SimulatedNode } from "@spegel-ts/testing/dht/SimulatedNetwork"
import { VirtualClock } from "@spegel-ts/testing/dht/VirtualClock"
import { createHash } from "node:crypto"
import { percentile } from "../Statistics.ts"

export interface SimulationPlan {
  readonly nodes: number
  /** Minutes of churn, of simulated time. */
  readonly minutes: number
  /** Share of the nodes that leave, and of others that come, in a minute. */
  readonly churn: number
  readonly seed: number
  /** Begin with a network in which all know all, instead of growing it. */
  readonly grown: boolean
}

export interface SimulationFigures extends SimulationPlan {
  readonly lookups: number
  /** Share of the lookups of keys with a live provider that named it. */
  readonly success: number
  /** Requests one after the other: 0 where the node itself kept the record, 2 where it asked one it had just heard of. */
  readonly hops: { readonly p50: number; readonly p99: number }
  readonly lookupMs: { readonly p50: number; readonly p99: number }
  /** Share of the named providers that were gone. */
  readonly stale: number
  readonly messagesPerNodeMinute: number
  readonly bytesPerNodeMinute: number
  readonly recordsPerNode: number
  readonly membersPerNode: number
  readonly connectionsPerNode: number
  readonly heapKiBPerNode: number
}

const keysPerNode = 20
const lookupsPerMinute = 2000
const joinMillis = 60
const settleMillis = 60_000

/** Numbers from 0 to 1 that are the same for the same seed (mulberry32). */
const seeded = (seed: number) => {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const dhtKey = (name: number): Uint8Array =>
  Buffer.concat([Uint8Array.of(0x12, 0x20), createHash("sha256").update(`key ${name}`).digest()])

export const simulate = async (plan: SimulationPlan): Promise<SimulationFigures> => {
  const clock = new VirtualClock()
  const random = seeded(plan.seed)
  const network = new SimulatedNetwork(clock, random)
  const holders = new Map<number, Set<SimulatedNode>>()
  const keyCount = plan.nodes * keysPerNode / 2
  const anyNode = (): SimulatedNode | undefined => {
    const nodes = [...network.nodes.values()].filter(({ alive }) => alive)
    return nodes[Math.floor(random() * nodes.length)]
  }
  const begin = (contact: SimulatedNode | undefined) => {
    const node = network.start(contact)
    const names = Array.from({ length: keysPerNode }, () => Math.floor(random() * keyCount))
    void clock.sleep(5000).then(() => node.kademlia.advertise(names.map(dhtKey))).then(() => {
      for (const name of names) holders.set(name, (holders.get(name) ?? new Set()).add(node))
    })
  }
  for (let started = 0; started < plan.nodes; started++) {
    begin(plan.grown ? undefined : anyNode())
    if (!plan.grown) await clock.pass(joinMillis)
  }
  if (plan.grown) {
    await clock.pass(joinMillis)
    network.acquaint()
  }
  await clock.pass(settleMillis)

  const before = { ...network.traffic }
  const hops: Array<number> = []
  const took: Array<number> = []
  let succeeded = 0
  let named = 0
  let stale = 0
  const queries = new Map<SimulatedNode, (to: string) => void>()
  network.onQuery = (from, to) => queries.get(from)?.(to)
  const lookUp = async () => {
    const asker = anyNode()
    const name = Math.floor(random() * keyCount)
    const held = [...holders.get(name) ?? []].some(({ alive }) => alive)
    if (asker === undefined || !held || holders.get(name)?.has(asker) === true) return
    const begun = clock.now
    let first: number | undefined
    let found = false
    const known = new Set([...asker.kademlia.members.values()].map(({ id }) => id))
    let depth = 0
    queries.set(asker, (to) => {
      depth = Math.max(depth, known.has(to) ? 1 : 2)
    })
    await asker.kademlia.lookup(dhtKey(name), ({ id }) => {
      if (first === undefined) hops.push(depth)
      first ??= clock.now - begun
      named++
      const alive = network.nodes.get(id)?.alive === true
      if (!alive) stale++
      found ||= alive
      return true
    })
    if (!asker.alive) return
    if (found) succeeded++
    took.push(first ?? clock.now - begun)
    queries.delete(asker)
  }
  const leave = (goodbye: boolean) => {
    const node = anyNode()
    if (node !== undefined) network.stop(node, { goodbye })
  }
  const leavesPerSecond = plan.nodes * plan.churn / 60
  let due = 0
  for (let second = 0; second < plan.minutes * 60; second++) {
    for (due += leavesPerSecond; due >= 1; due--) {
      leave(random() < 0.5)
      begin(anyNode())
    }
    for (let lookup = 0; lookup < lookupsPerMinute / 60; lookup++) {
      void lookUp()
      await clock.pass(60_000 / lookupsPerMinute)
    }
  }
  await clock.pass(1000)

  const nodes = [...network.nodes.values()]
  const mean = (of: (node: SimulatedNode) => number) => nodes.reduce((sum, node) => sum + of(node), 0) / nodes.length
  const nodeMinutes = plan.nodes * plan.minutes
  return {
    ...plan,
    lookups: took.length,
    success: succeeded / took.length,
    hops: { p50: percentile(hops, 0.5), p99: percentile(hops, 0.99) },
    lookupMs: { p50: percentile(took, 0.5), p99: percentile(took, 0.99) },
    stale: stale / named,
    messagesPerNodeMinute: (network.traffic.messages - before.messages) / nodeMinutes,
    bytesPerNodeMinute: (network.traffic.bytes - before.bytes) / nodeMinutes,
    recordsPerNode: mean(({ kademlia }) => kademlia.counts.records),
    membersPerNode: mean(({ kademlia }) => kademlia.counts.members),
    connectionsPerNode: mean(({ connections }) => connections.size),
    heapKiBPerNode: process.memoryUsage().heapUsed / nodes.length / 1024
  }
}
