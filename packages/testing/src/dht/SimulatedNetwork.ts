/**
 * A network of DHT nodes in one process, on a virtual clock: latency, loss, connections, nodes that freeze, stop and are
 * killed, and links that go down. Unit tests use it with `ideal` conditions, simulations of large clusters with `realistic`
 * ones.
 */
import { Dht, type Provider } from "@spegel-ts/router/internal/dht/Dht"
import { copied, type Member, type PeerRecord } from "@spegel-ts/router/internal/dht/members/MemberTable"
import { encodeFrame, type Message, MessageType } from "@spegel-ts/router/internal/dht/rpc/Message"
import { message, RequestFailed, textOf } from "@spegel-ts/router/internal/dht/rpc/Protocol"
import { VirtualClock } from "./VirtualClock.ts"

/** Times are in milliseconds. */
export interface Conditions {
  readonly latency: (random: () => number) => number
  /** The time that a new connection takes. */
  readonly connect: number
  /** Share of the requests that are lost. */
  readonly loss: number
}

/** A millisecond each way, and nothing else. */
export const ideal: Conditions = { latency: () => 1, connect: 0, loss: 0 }

/** Mostly fast, with TCP's and noise's handshakes before the first request, and one message in a thousand lost. */
export const realistic: Conditions = { latency: (random) => 0.2 + 1.8 * random() ** 3, connect: 8, loss: 0.001 }

export interface SimulatedNode {
  readonly id: string
  /** The record that others store of it. They share one: a simulation could not hold a copy for each. */
  readonly record: PeerRecord
  readonly dht: Dht
  readonly connections: Set<SimulatedNode>
  /** It neither answers nor hears. */
  frozen: boolean
  /** It was stopped or killed. A stopped node still answers for a moment. */
  ended: boolean
  /** Nobody is there: requests are refused. */
  gone: boolean
}

/** Messages and bytes of the whole network. */
export interface Traffic {
  messages: number
  bytes: number
}

const provideTimeoutMillis = 5000
/** Time from the end of a node until others notice that its connections have ended. */
const endMillis = 100

/** The multiaddr of TCP port 5001 of `10.x.y.z`, where `x.y.z` is the number. */
export const addressOf = (host: number): Uint8Array =>
  Buffer.from([4, 10, (host >> 16) & 255, (host >> 8) & 255, host & 255, 6, 0x13, 0x89])

/** An address that no peer may claim: the metadata service of a cloud. */
export const unusableAddress: Uint8Array = Buffer.from([4, 169, 254, 169, 254, 6, 0, 80])

const isUsable = ([, first]: Uint8Array): boolean => first !== 169

export class SimulatedNetwork {
  readonly clock: VirtualClock
  readonly nodes = new Map<string, SimulatedNode>()
  readonly traffic: Traffic = { messages: 0, bytes: 0 }
  /** Called with each request, before it is sent. */
  onRequest: (from: SimulatedNode, to: string, message: Message) => void = () => undefined
  readonly #conditions: Conditions
  readonly #random: () => number
  readonly #records = new Map<string, PeerRecord>()
  /** Nodes behind a link that is down: they and the others cannot reach each other. */
  readonly #apart = new Set<SimulatedNode>()
  #started = 0
  #suspendedMillis = 0

  /** `random` returns numbers from 0 to 1. The same numbers give the same run. */
  constructor(conditions: Conditions, random: () => number) {
    this.#conditions = conditions
    this.#random = random
    // The core takes 0 for never.
    this.clock = new VirtualClock(1)
  }

  /** Starts a node. Nodes with the same `host` share an address. */
  start(idBytes: Uint8Array, options: { readonly host?: number } = {}): SimulatedNode {
    const addresses = [addressOf(options.host ?? this.#started)]
    this.#started++
    const record = copied(textOf(idBytes), { id: idBytes, addresses })
    this.#records.set(record.id, record)
    const dht: Dht = new Dht({
      self: { id: record.id, idBytes },
      addresses: () => addresses,
      servicePort: 5000,
      environment: {
        now: () => this.clock.now,
        uptime: () => this.clock.now + this.#suspendedMillis,
        random: this.#random,
        after: (millis, run) => this.clock.after(millis, run),
        idText: textOf,
        usable: (claimed) => claimed.filter(isUsable),
        record: (id, peer) => this.#records.get(id) ?? copied(id, peer),
        groupOf: ([first]) => first === undefined ? "" : textOf(first)
      },
      transport: {
        request: (member, asked, timeoutMillis) => this.#request(node, member, asked, timeoutMillis),
        provide: async (member, keys) => {
          const providers = [{ id: idBytes, addresses }]
          const records = keys.map((key) => message(MessageType.addProvider, key, [], providers))
          await this.#deliver(node, member, records, provideTimeoutMillis)
        },
        gossip: (member, messages) => void this.#gossip(node, member, messages)
      },
      ttlMillis: 600_000,
      refreshMillis: 540_000
    })
    const node: SimulatedNode = {
      id: record.id,
      record,
      dht,
      connections: new Set(),
      frozen: false,
      ended: false,
      gone: false
    }
    this.nodes.set(node.id, node)
    dht.start()
    return node
  }

  /** Lets time pass, and everything happen that is due. */
  pass(millis: number): Promise<void> {
    return this.clock.pass(millis)
  }

  /** Opens a connection, on which both sides say who they are. */
  connect(a: SimulatedNode, b: SimulatedNode): void {
    if (a.connections.has(b)) return
    a.connections.add(b)
    b.connections.add(a)
    const peer = ({ record }: SimulatedNode) => ({ ...record, agent: "simulated", ours: true })
    a.dht.connected(peer(b))
    b.dht.connected(peer(a))
  }

  /** Ends all connections of a node that pass the filter. */
  disconnect(node: SimulatedNode, passes: (other: SimulatedNode) => boolean = () => true): void {
    for (const other of [...node.connections].filter(passes)) {
      node.connections.delete(other)
      other.connections.delete(node)
      other.dht.disconnected(node.id)
      if (!node.gone) node.dht.disconnected(other.id)
    }
  }

  /** Ends a node with a goodbye. */
  stop(node: SimulatedNode): void {
    node.dht.stop()
    this.#end(node)
  }

  /** Ends a node without a goodbye. */
  kill(node: SimulatedNode): void {
    node.gone = true
    node.dht.stop()
    this.#end(node)
  }

  #end(node: SimulatedNode): void {
    node.ended = true
    this.clock.after(endMillis, () => {
      node.gone = true
      this.nodes.delete(node.id)
      this.disconnect(node)
    })
  }

  /** The machines were suspended: `now` stood still meanwhile. */
  suspend(millis: number): void {
    this.#suspendedMillis += millis
  }

  /** The link to some nodes goes down, and connections over it end. */
  part(nodes: ReadonlyArray<SimulatedNode>): void {
    for (const node of nodes) this.#apart.add(node)
    for (const node of nodes) this.disconnect(node, (other) => !this.#reaches(node, other))
  }

  /** All links are up again. */
  heal(): void {
    this.#apart.clear()
  }

  /** Makes every node a member for every other at once, as if the network had had the time to grow. */
  acquaint(): void {
    for (const node of this.nodes.values()) {
      for (const { record } of this.nodes.values()) {
        if (record === node.record) continue
        const heard = node.dht.members.heard(record, this.clock.now)
        if (heard !== undefined) heard.member.ours = true
      }
    }
  }

  /** Looks a key up. Returns the providers that the lookup named, and how long it took. */
  async lookup(node: SimulatedNode, key: Uint8Array) {
    const found: Array<Provider> = []
    const begun = this.clock.now
    const end: { at?: number } = {}
    void node.dht.lookup(key, (provider) => {
      found.push(provider)
      return true
    }).then(() => {
      end.at = this.clock.now
    })
    while (end.at === undefined) await this.pass(1)
    return { found: found.map(({ id }) => id), millis: end.at - begun }
  }

  #reaches(a: SimulatedNode, b: SimulatedNode): boolean {
    return !b.gone && this.#apart.has(a) === this.#apart.has(b)
  }

  /** A node that can be reached; connects to it if needed. */
  async #reach(from: SimulatedNode, member: Member): Promise<SimulatedNode | undefined> {
    const to = this.nodes.get(member.id)
    if (to === undefined || !this.#reaches(from, to)) return undefined
    if (!from.connections.has(to)) {
      await this.clock.sleep(this.#conditions.connect)
      this.connect(from, to)
    }
    return to
  }

  async #deliver(
    from: SimulatedNode,
    member: Member,
    messages: ReadonlyArray<Message>,
    timeoutMillis: number
  ): Promise<Message | undefined> {
    for (const sent of messages) this.onRequest(from, member.id, sent)
    const to = await this.#reach(from, member)
    if (to === undefined) {
      await this.#travel()
      throw new RequestFailed("nobody is there", { unreachable: true })
    }
    this.#count(messages)
    if (from.frozen || to.frozen || this.#random() < this.#conditions.loss) {
      await this.clock.sleep(timeoutMillis)
      throw new RequestFailed("no answer", { unreachable: false })
    }
    await this.#travel()
    if (to.gone) throw new RequestFailed("the connection ended", { unreachable: true })
    let answer: Message | undefined
    for (const arrived of messages) answer = to.dht.answer(from.id, from.id, arrived)
    if (answer !== undefined) this.#count([answer])
    await this.#travel()
    return answer
  }

  async #request(from: SimulatedNode, member: Member, asked: Message, timeoutMillis: number): Promise<Message> {
    const answer = await this.#deliver(from, member, [asked], timeoutMillis)
    if (answer === undefined) throw new RequestFailed("no answer is due", { unreachable: false })
    return answer
  }

  async #gossip(from: SimulatedNode, member: Member, messages: ReadonlyArray<Message>): Promise<void> {
    if (from.gone) return
    const to = await this.#reach(from, member)
    if (to === undefined || from.frozen || to.frozen) return
    this.#count(messages)
    await this.#travel()
    if (to.gone) return
    for (const arrived of messages) to.dht.gossip(from.id, arrived)
  }

  #travel(): Promise<void> {
    return this.clock.sleep(this.#conditions.latency(this.#random))
  }

  #count(messages: ReadonlyArray<Message>): void {
    this.traffic.messages += messages.length
    for (const counted of messages) this.traffic.bytes += encodeFrame(counted).length
  }
}
