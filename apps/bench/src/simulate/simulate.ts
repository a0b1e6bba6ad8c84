/** Simulates a cluster that grows and then lives with churn, while keys are looked up. */
import { MessageType } from "@spegel-ts/router/internal/dht/rpc/Message"
import { realistic, SimulatedNetwork, type SimulatedNode } from "@spegel-ts/testing/dht/SimulatedNetwork"
import { random } from "@spegel-ts/testing/SeededRandom"
import { createHash } from "node:crypto"
import { percentile } from "../Statistics.ts"

export interface SimulationPlan {
  readonly nodes: number
  /** Simulated minutes of churn. */
  readonly minutes: number
  /** Share of the nodes that leave in a minute, while as many join. */
  readonly churn: number
  readonly seed: number
  /** Start with a network in which all nodes know each other, instead of growing one. */
  readonly grown: boolean
}

export interface SimulationFigures extends SimulationPlan {
  readonly lookups: number
  /** Share of the lookups of keys with a live provider that named it. */
  readonly success: number
  /** Requests in sequence: 0 if the node itself stored the record, 2 if it asked a member that an answer had named. */
  readonly hops: { readonly p50: number; readonly p99: number }
  readonly lookupMs: { readonly p50: number; readonly p99: number }
  /** Share of the named providers that had left. */
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

const sha256 = (text: string): Uint8Array => createHash("sha256").update(text).digest()

const dhtKey = (name: number): Uint8Array => Buffer.concat([Uint8Array.of(0x12, 0x20), sha256(`key ${name}`)])

export const simulate = async (plan: SimulationPlan): Promise<SimulationFigures> => {
  const simulation = new Simulation(plan)
  await simulation.grow()
  await simulation.churn()
  return simulation.figures()
}

class Simulation {
  readonly #plan: SimulationPlan
  readonly #random: () => number
  readonly #network: SimulatedNetwork
  readonly #keyCount: number
  /** Nodes that have provided each key. */
  readonly #holders = new Map<number, Set<SimulatedNode>>()
  /** Called with each member that a node asks for providers. */
  readonly #queries = new Map<SimulatedNode, (to: string) => void>()
  #trafficBefore = { messages: 0, bytes: 0 }
  readonly #hops: Array<number> = []
  readonly #took: Array<number> = []
  #succeeded = 0
  #named = 0
  #stale = 0
  #started = 0

  constructor(plan: SimulationPlan) {
    this.#plan = plan
    this.#random = random(plan.seed).next
    this.#network = new SimulatedNetwork(realistic, this.#random)
    this.#keyCount = plan.nodes * keysPerNode / 2
    this.#network.onRequest = (from, to, { type }) => {
      if (type === MessageType.getProviders) this.#queries.get(from)?.(to)
    }
  }

  async grow(): Promise<void> {
    const { grown, nodes } = this.#plan
    for (let started = 0; started < nodes; started++) {
      this.#start(grown ? undefined : this.#anyNode())
      if (!grown) await this.#network.pass(joinMillis)
    }
    if (grown) {
      await this.#network.pass(joinMillis)
      this.#network.acquaint()
    }
    await this.#network.pass(settleMillis)
  }

  /** Lets nodes leave and others join, and looks keys up meanwhile. */
  async churn(): Promise<void> {
    const { churn, minutes, nodes } = this.#plan
    this.#trafficBefore = { ...this.#network.traffic }
    let due = 0
    for (let second = 0; second < minutes * 60; second++) {
      for (due += nodes * churn / 60; due >= 1; due--) {
        this.#endAny()
        this.#start(this.#anyNode())
      }
      for (let lookup = 0; lookup < lookupsPerMinute / 60; lookup++) {
        void this.#lookUp()
        await this.#network.pass(60_000 / lookupsPerMinute)
      }
    }
    await this.#network.pass(1000)
  }

  figures(): SimulationFigures {
    const { minutes, nodes } = this.#plan
    const alive = [...this.#network.nodes.values()]
    const mean = (of: (node: SimulatedNode) => number) => alive.reduce((sum, node) => sum + of(node), 0) / alive.length
    const { bytes, messages } = this.#network.traffic
    return {
      ...this.#plan,
      lookups: this.#took.length,
      success: this.#succeeded / this.#took.length,
      hops: { p50: percentile(this.#hops, 0.5), p99: percentile(this.#hops, 0.99) },
      lookupMs: { p50: percentile(this.#took, 0.5), p99: percentile(this.#took, 0.99) },
      stale: this.#stale / this.#named,
      messagesPerNodeMinute: (messages - this.#trafficBefore.messages) / (nodes * minutes),
      bytesPerNodeMinute: (bytes - this.#trafficBefore.bytes) / (nodes * minutes),
      recordsPerNode: mean(({ dht }) => dht.counts.records),
      membersPerNode: mean(({ dht }) => dht.counts.members),
      connectionsPerNode: mean(({ connections }) => connections.size),
      heapKiBPerNode: process.memoryUsage().heapUsed / alive.length / 1024
    }
  }

  #anyNode(): SimulatedNode | undefined {
    const nodes = [...this.#network.nodes.values()].filter(({ ended }) => !ended)
    return nodes[Math.floor(this.#random() * nodes.length)]
  }

  /** Starts a node, which provides its keys five seconds later. */
  #start(contact: SimulatedNode | undefined): void {
    const node = this.#network.start(sha256(`node ${this.#started++}`).subarray(0, 20))
    if (contact !== undefined) this.#network.connect(node, contact)
    const names = Array.from({ length: keysPerNode }, () => Math.floor(this.#random() * this.#keyCount))
    void this.#network.clock.sleep(5000).then(() => node.dht.advertise(names.map(dhtKey))).then(() => {
      for (const name of names) this.#holders.set(name, (this.#holders.get(name) ?? new Set()).add(node))
    })
  }

  /** Half of the nodes that leave say goodbye. */
  #endAny(): void {
    const goodbye = this.#random() < 0.5
    const node = this.#anyNode()
    if (node === undefined) return
    if (goodbye) this.#network.stop(node)
    else this.#network.kill(node)
  }

  /** Looks a random key up that a live node provides, from another node. */
  async #lookUp(): Promise<void> {
    const { clock, nodes } = this.#network
    const asker = this.#anyNode()
    const name = Math.floor(this.#random() * this.#keyCount)
    const holders = [...this.#holders.get(name) ?? []]
    if (asker === undefined || holders.includes(asker) || holders.every(({ ended }) => ended)) return
    const begun = clock.now
    let first: number | undefined
    let found = false
    let depth = 0
    const known = new Set([...asker.dht.members.values()].map(({ id }) => id))
    this.#queries.set(asker, (to) => {
      depth = Math.max(depth, known.has(to) ? 1 : 2)
    })
    await asker.dht.lookup(dhtKey(name), ({ id }) => {
      if (first === undefined) this.#hops.push(depth)
      first ??= clock.now - begun
      this.#named++
      const alive = nodes.get(id)?.ended === false
      if (!alive) this.#stale++
      found ||= alive
      return true
    })
    if (asker.ended) return
    if (found) this.#succeeded++
    this.#took.push(first ?? clock.now - begun)
    this.#queries.delete(asker)
  }
}
