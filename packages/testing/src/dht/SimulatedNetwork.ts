/** A network of router cores in one process: latency, loss, connections, and nodes that come and go. */
import { Kademlia } from "@spegel-ts/router/internal/dht/Dht"
import { positionOf } from "@spegel-ts/router/internal/dht/Distance"
import type { Member, PeerRecord } from "@spegel-ts/router/internal/dht/members/MemberTable"
import { encodeFrame, type Message, MessageType } from "@spegel-ts/router/internal/dht/rpc/Message"
import { message, RequestFailed, textOf } from "@spegel-ts/router/internal/dht/rpc/Protocol"
import { createHash } from "node:crypto"
import type { VirtualClock } from "./VirtualClock.ts"

export interface SimulatedNode {
  readonly id: string
  /** All that others remember of it, once for all of them: what they have each is what a simulation cannot hold. */
  readonly record: PeerRecord
  readonly kademlia: Kademlia
  readonly connections: Set<SimulatedNode>
  alive: boolean
}

/** Messages and bytes of the whole network. */
export interface Traffic {
  messages: number
  bytes: number
}

const minLatencyMillis = 0.2
const maxLatencyMillis = 2
/** TCP and the handshake of noise. */
const connectMillis = 8
const lossShare = 0.001
const servicePort = 5000
const ttlMillis = 600_000
const refreshMillis = 540_000

export class SimulatedNetwork {
  readonly nodes = new Map<string, SimulatedNode>()
  readonly traffic: Traffic = { messages: 0, bytes: 0 }
  /** Is told who asks whom who provides a key. */
  onQuery: (from: SimulatedNode, to: string) => void = () => undefined
  readonly #clock: VirtualClock
  readonly #random: () => number
  readonly #records = new Map<string, PeerRecord>()
  readonly #places = new Map<Uint8Array, string>()
  #started = 0

  constructor(clock: VirtualClock, random: () => number) {
    this.#clock = clock
    this.#random = random
  }

  /** Starts a node that knows `contact`. */
  start(contact: SimulatedNode | undefined): SimulatedNode {
    const number = this.#started++
    const idBytes = createHash("sha256").update(`node ${number}`).digest().subarray(0, 20)
    const id = idBytes.toString("latin1")
    const address = Buffer.from([4, 10, number >> 16, (number >> 8) & 255, number & 255, 6, 19, 137])
    const record: PeerRecord = { id, idBytes, position: positionOf(idBytes), addresses: [address] }
    this.#records.set(id, record)
    this.#places.set(address, id)
    const node: SimulatedNode = {
      id,
      record,
      connections: new Set(),
      alive: true,
      kademlia: new Kademlia({
        self: { id, idBytes },
        addresses: () => [address],
        servicePort,
        environment: {
          now: () => this.#clock.now,
          uptime: () => this.#clock.now,
          random: this.#random,
          after: (millis, run) => this.#clock.after(millis, run),
          idText: textOf,
          usable: (addresses) => addresses,
          keep: (told) => this.#records.get(told) ?? record,
          siteOf: ([first]) => first === undefined ? "" : this.#places.get(first) ?? textOf(first)
        },
        transport: {
          request: (member, asked, timeoutMillis) => this.#request(node, member, asked, timeoutMillis),
          provide: async (member, keys) => {
            const providers = [{ id: idBytes, addresses: [address] }]
            await this.#arrive(
              node,
              member,
              keys.map((key) => message(MessageType.addProvider, key, [], providers)),
              5000
            )
          },
          tell: (member, notes) => void this.#tell(node, member, notes)
        },
        ttlMillis,
        refreshMillis
      })
    }
    this.nodes.set(id, node)
    node.kademlia.start()
    if (contact !== undefined) this.#connect(node, contact)
    return node
  }

  /** All nodes have heard of all: what a network is that has grown, without the days that it took. */
  acquaint(): void {
    for (const { kademlia, record: self } of this.nodes.values()) {
      for (const { record } of this.nodes.values()) {
        if (record === self) continue
        const heard = kademlia.members.heard(record, this.#clock.now)
        if (heard === undefined) continue
        heard.member.ours = true
        heard.member.servicePort = servicePort
      }
    }
  }

  /** A node ends: with a goodbye, or without a word. */
  stop(node: SimulatedNode, options: { readonly goodbye: boolean }): void {
    if (!options.goodbye) node.alive = false
    node.kademlia.stop()
    this.#clock.after(100, () => {
      node.alive = false
      this.nodes.delete(node.id)
      for (const other of node.connections) {
        other.connections.delete(node)
        other.kademlia.disconnected(node.id)
      }
    })
  }

  #connect(a: SimulatedNode, b: SimulatedNode): void {
    a.connections.add(b)
    b.connections.add(a)
    const facts = ({ record }: SimulatedNode) => ({ ...record, agent: "simulated", ours: true })
    a.kademlia.connected(facts(b))
    b.kademlia.connected(facts(a))
  }

  #latency(): number {
    return minLatencyMillis + (maxLatencyMillis - minLatencyMillis) * this.#random() ** 3
  }

  #count(messages: ReadonlyArray<Message>): void {
    this.traffic.messages += messages.length
    for (const counted of messages) this.traffic.bytes += encodeFrame(counted).length
  }

  async #arrive(
    from: SimulatedNode,
    member: Member,
    messages: ReadonlyArray<Message>,
    timeoutMillis: number
  ): Promise<Message | undefined> {
    const to = this.nodes.get(member.id)
    if (to === undefined || !to.alive) {
      await this.#clock.sleep(this.#latency())
      throw new RequestFailed("nobody is there", { unreachable: true })
    }
    if (!from.connections.has(to)) {
      await this.#clock.sleep(connectMillis)
      if (!from.connections.has(to)) this.#connect(from, to)
    }
    this.#count(messages)
    if (this.#random() < lossShare) {
      await this.#clock.sleep(timeoutMillis)
      throw new RequestFailed("no answer", { unreachable: false })
    }
    await this.#clock.sleep(this.#latency())
    if (!to.alive) throw new RequestFailed("the connection ended", { unreachable: true })
    let answer: Message | undefined
    for (const arrived of messages) answer = to.kademlia.answer(from.id, from.id, arrived)
    if (answer !== undefined) this.#count([answer])
    await this.#clock.sleep(this.#latency())
    return answer
  }

  async #request(from: SimulatedNode, member: Member, asked: Message, timeoutMillis: number): Promise<Message> {
    if (asked.type === MessageType.getProviders) this.onQuery(from, member.id)
    const answer = await this.#arrive(from, member, [asked], timeoutMillis)
    if (answer === undefined) throw new RequestFailed("no answer is due", { unreachable: false })
    return answer
  }

  async #tell(from: SimulatedNode, member: Member, notes: ReadonlyArray<Message>): Promise<void> {
    const to = this.nodes.get(member.id)
    if (to === undefined || !to.alive) return
    if (!from.connections.has(to)) {
      await this.#clock.sleep(connectMillis)
      if (!from.connections.has(to)) this.#connect(from, to)
    }
    this.#count(notes)
    await this.#clock.sleep(this.#latency())
    if (to.alive) { for (const note of notes) to.kademlia.note(from.id, note) }
  }
}
