/**
 * A one-hop DHT: it speaks Kademlia's wire protocol, but every node knows every member. Kademlia's routing table and its
 * iterative walk are not here. Instead there are
 *
 * - full membership, kept by gossip (`members/`): a lookup's first round asks the nodes that store the key;
 * - a record store and batched hand-outs (`records/`);
 * - lookups with hedging (`lookup/`), and messages in the wire format of libp2p's kad-dht (`rpc/`).
 *
 * The core has no libp2p and no clock of its own: both are passed in, so that the same code runs in a cluster and in a
 * simulation. docs/decisions/0011-one-hop-dht.md has the reasons.
 */
import { type Position, positionOf } from "./Distance.ts"
import { lookup, type LookupOptions } from "./lookup/Lookup.ts"
import { type ConnectedPeer, Membership } from "./members/Membership.ts"
import { isSpeaker, type Member, type MemberTable, type ProvedFacts, toWire } from "./members/MemberTable.ts"
import { ProviderStore } from "./records/ProviderStore.ts"
import { Reprovider } from "./records/Reprovider.ts"
import { type Message, MessageType, type WirePeer } from "./rpc/Message.ts"
import { empty, type Environment, GossipType, message, textOf, type Transport } from "./rpc/Protocol.ts"

export interface DhtOptions {
  readonly self: { readonly id: string; readonly idBytes: Uint8Array }
  /** Multiaddrs that this node announces now. */
  readonly addresses: () => ReadonlyArray<Uint8Array>
  /** Port of the service beside this router; 0 for none. */
  readonly servicePort: number
  /** Lookups name providers that have proved to be in this zone first. */
  readonly zone?: string | undefined
  readonly environment: Environment
  readonly transport: Transport
  /** How long a record lives that a node of this implementation sent. */
  readonly ttlMillis: number
  /** How often own records are sent again. */
  readonly refreshMillis: number
}

/** Go nodes send their records again every 15 minutes, so they have to live longer. */
const foreignTtlMillis = 20 * 60_000
const graceMillis = 60_000
const tickMillis = 5000
/** A tick that is late by this much was held up: the process was stopped, or the machine suspended. */
const awokeMillis = 10_000
/** New members are collected for this long before they are sent their records. */
const newcomerMillis = 500
/** How long a member counts as new to the network. */
const newToNetworkMillis = 10_000
const sweptPerTick = 20_000

/** A provider that a lookup has found. */
export interface Provider {
  readonly id: string
  readonly addresses: ReadonlyArray<Uint8Array>
  /** The port of its service; undefined if the peer has not sent it. */
  readonly servicePort: number | undefined
  /** What it has proved; undefined if that is nothing, or if only others know the provider. */
  readonly proof: ProvedFacts | undefined
}

/** Counts for metrics. */
export interface DhtCounts {
  readonly members: number
  readonly records: number
  readonly ownKeys: number
  readonly evictions: number
  /** Of the members that were heard from, those that have proved that they know the cluster key. */
  readonly proved: number
  /** The other members that were heard from. */
  readonly unproved: number
}

export class Dht {
  readonly store: ProviderStore
  readonly #options: DhtOptions
  readonly #membership: Membership
  readonly #reprovider: Reprovider
  readonly #lookup: LookupOptions
  readonly #cancels = new Set<() => void>()
  #newcomers: Array<Member> = []
  #left = false
  #stopped = false

  constructor(options: DhtOptions) {
    this.#options = options
    this.store = new ProviderStore(options.environment.random)
    const core = { ...options, after: (millis: number, run: () => void) => this.#after(millis, run) }
    this.#membership = new Membership({ ...core, onNewcomer: (member) => this.#collectNewcomer(member) })
    this.#reprovider = new Reprovider({ ...core, membership: this.#membership })
    this.#lookup = { ...core, membership: this.#membership }
  }

  get members(): MemberTable {
    return this.#membership.members
  }

  get counts(): DhtCounts {
    const heard = [...this.members.values()].filter(({ lastHeard }) => lastHeard > 0)
    const proved = heard.filter(({ proof }) => proof !== undefined).length
    return {
      proved,
      unproved: heard.length - proved,
      members: this.members.size,
      records: this.store.size,
      ownKeys: this.#reprovider.size,
      evictions: this.#membership.detector.evictions
    }
  }

  /** The members closest to this node: they store the same keys. */
  neighbours(): ReadonlyArray<Member> {
    return this.#membership.neighbourhood.neighbours()
  }

  /** Begins to monitor members and to refresh records. */
  start(): void {
    const { random, uptime } = this.#options.environment
    let last = uptime()
    const tick = () => {
      // The next tick is set before this one runs, so that one that throws is not the last.
      this.#after(tickMillis * (0.8 + 0.4 * random()), tick)
      const since = uptime() - last
      last += since
      this.#tick(since > awokeMillis)
    }
    this.#after(tickMillis * random(), tick)
  }

  /** Says goodbye to the members that gossip, and provides nothing any more. Requests and lookups are still answered. */
  leave(): void {
    if (this.#left) return
    this.#left = true
    this.#reprovider.clear()
    for (const member of this.members.values()) {
      if (isSpeaker(member)) this.#options.transport.gossip(member, [message(GossipType.goodbye, empty)])
    }
  }

  /** Leaves, and stops. */
  stop(): void {
    this.leave()
    this.#stopped = true
    for (const cancel of this.#cancels) cancel()
  }

  /** A peer has connected and said who it is. */
  connected(peer: ConnectedPeer): void {
    if (!this.#stopped) this.#membership.connected(peer)
  }

  /** The connection to a peer has ended. */
  disconnected(id: string): void {
    if (!this.#stopped) this.#membership.detector.disconnected(id)
  }

  /** The members that this node heard from whose proofs were made with other keys than these. */
  provedWithOtherKeys(keyIds: ReadonlyArray<string>): ReadonlyArray<string> {
    return [...this.members.values()].flatMap(({ id, proof }) =>
      proof !== undefined && !keyIds.includes(proof.keyId) ? id : []
    )
  }

  /** Pings a member, which connects to it if needed. One that does not answer is evicted. */
  check(id: string): void {
    const member = this.members.get(id)
    if (!this.#stopped && member !== undefined) void this.#membership.detector.ping(member)
  }

  /** Announces to a member that its unused connection is about to be closed. */
  announceRest(id: string): void {
    const member = this.members.get(id)
    if (member?.ours === true) this.#options.transport.gossip(member, [message(GossipType.rest, empty)])
  }

  // --- messages of peers --------------------------------------------------------------------------------------

  /**
   * Handles a DHT message of a peer that is connected from `address`. Returns the answer, or undefined if none is due.
   * Throws a `RangeError` on a type that no peer sends.
   */
  answer(from: string, address: string, { key, providers, type }: Message): Message | undefined {
    const sender = this.#membership.heardFrom(from)
    switch (type) {
      case MessageType.ping:
        return message(type, key)
      case MessageType.findNode:
        return message(type, key, this.#membership.closestHeard(positionOf(key)))
      case MessageType.getProviders: {
        const closer = this.#knowsMembers(sender) ? [] : this.#membership.closestHeard(positionOf(key))
        return message(type, key, closer, this.#providersOf(key))
      }
      case MessageType.addProvider:
        // A peer may name itself only.
        if (providers.some((provider) => this.#isRecordOf(from, provider))) this.#store(key, from, address, sender)
        return undefined
      default:
        throw new RangeError(`no message has type ${type}`)
    }
  }

  /** Handles a gossip message. Throws a `RangeError` on a type that no peer sends. */
  gossip(from: string, received: Message): void {
    switch (received.type) {
      case GossipType.hello:
        return this.#membership.hello(from, received)
      case GossipType.withdraw:
        return this.store.remove(received.key, from)
      case GossipType.goodbye:
        this.store.removePeer(from)
        return this.#membership.left(from)
      case GossipType.rest:
        return this.#membership.rests(from)
      default:
        throw new RangeError(`no gossip message has type ${received.type}`)
    }
  }

  #isRecordOf(peer: string, { addresses, id }: WirePeer): boolean {
    return addresses.length > 0 && this.#options.environment.idText(id) === peer
  }

  /** A record beyond the sender's share is dropped without a penalty: the sender may well provide so many keys. */
  #store(key: Uint8Array, from: string, address: string, sender: Member | undefined): void {
    const ttl = sender?.ours === false ? foreignTtlMillis : this.#options.ttlMillis + graceMillis
    this.store.add(key, from, address, (this.#now() + ttl) / 1000)
  }

  /**
   * Whether a sender needs no names of other members: gossip has told it of them. Twenty members would be most of an
   * answer's cost.
   */
  #knowsMembers(sender: Member | undefined): boolean {
    return sender !== undefined && isSpeaker(sender) && this.#now() - sender.since > newToNetworkMillis
  }

  /** The providers to name in an answer. This node may be one of them. */
  #providersOf(key: Uint8Array): ReadonlyArray<WirePeer> {
    const others = this.#localProviders(key, this.#lastHeardFirst).map(toWire)
    return this.#reprovider.has(textOf(key))
      ? [{ id: this.#options.self.idBytes, addresses: this.#options.addresses() }, ...others]
      : others
  }

  #localProviders(key: Uint8Array, order: (a: Member, b: Member) => number): ReadonlyArray<Member> {
    return this.store.get(key, this.#now() / 1000)
      .flatMap((id) => this.members.get(id) ?? [])
      .toSorted(order)
  }

  /** A provider that answered a moment ago comes before one that may be frozen. */
  readonly #lastHeardFirst = (a: { readonly id: string }, b: { readonly id: string }): number =>
    this.#contact(b.id) - this.#contact(a.id)

  /** A provider of this node's zone comes before others that answer as well as it does. */
  readonly #bestFirst = (a: { readonly id: string }, b: { readonly id: string }): number =>
    Number(this.#isNear(b.id)) - Number(this.#isNear(a.id)) || this.#lastHeardFirst(a, b)

  /** Whether a member that answers is in this node's zone. */
  #isNear(id: string): boolean {
    const { zone } = this.#options
    return zone !== undefined && this.#contact(id) > 0 && this.members.get(id)?.proof?.zone === zone
  }

  #contact(id: string): number {
    if (this.members.evicted(id) !== undefined) return -1
    const member = this.members.get(id)
    return member === undefined ? 0 : member.late ? -1 : member.lastHeard
  }

  // --- keys ---------------------------------------------------------------------------------------------------

  /**
   * Finds the providers of a key: first in this node's own store, then by asking the members that store the key. Calls
   * `onFound` once for each provider; it returns false when no more are wanted. Resolves when the lookup is over.
   */
  async lookup(key: Uint8Array, onFound: (provider: Provider) => boolean): Promise<void> {
    const position = positionOf(key)
    const seen = new Set([this.#options.self.id])
    let wanted = true
    const found = (id: string, addresses: ReadonlyArray<Uint8Array>) => {
      if (!wanted || seen.has(id)) return
      seen.add(id)
      wanted = onFound(this.#providerOf(id, addresses))
    }
    const local = this.#localProviders(key, this.#bestFirst)
    for (const { addresses, id } of local) found(id, addresses)
    if (!wanted || this.#isComplete(key, position, local)) return
    const onProviders = (providers: ReadonlyArray<WirePeer>) => {
      const named = providers.map(({ addresses, id }) => ({ addresses, id: this.#options.environment.idText(id) }))
      for (const { addresses, id } of named.toSorted(this.#bestFirst)) found(id, addresses)
      return wanted
    }
    await lookup(this.#lookup, { key, position, onProviders })
  }

  /** A provider that was named with these addresses. A member's own word on its addresses counts more than another's. */
  #providerOf(id: string, addresses: ReadonlyArray<Uint8Array>): Provider {
    const member = this.members.get(id)
    const isHeard = member !== undefined && member.lastHeard > 0
    return {
      id,
      addresses: isHeard && (member.addresses.length > 0 || member.proof !== undefined) ? member.addresses : addresses,
      servicePort: member?.servicePort,
      proof: isHeard ? member.proof : undefined
    }
  }

  /** Whether other members could name no further provider. */
  #isComplete(key: Uint8Array, position: Position, local: ReadonlyArray<Member>): boolean {
    const { neighbourhood } = this.#membership
    // If a provider is late, another member may know one that is not.
    if (local.length > 0) return local.some(({ late }) => !late) && neighbourhood.isKeeper(position)
    // A record of an evicted peer is a hint: other members may have heard from that peer since.
    return neighbourhood.hasEverything() && this.store.get(key, this.#now() / 1000).length === 0
  }

  /** Adds keys to those that this node provides; resolves when the members that store them have the records. */
  async advertise(keys: ReadonlyArray<Uint8Array>): Promise<void> {
    if (!this.#left) await this.#reprovider.advertise(keys)
  }

  /** Stops providing keys. Members that gossip drop the records at once. */
  withdraw(keys: ReadonlyArray<Uint8Array>): void {
    this.#reprovider.withdraw(keys)
  }

  // --- time ---------------------------------------------------------------------------------------------------

  #collectNewcomer(member: Member): void {
    this.#newcomers.push(member)
    if (this.#newcomers.length > 1) return
    this.#after(newcomerMillis, () => {
      const newcomers = new Set(this.#newcomers)
      this.#newcomers = []
      this.#reprovider.handToNewcomers(newcomers)
    })
  }

  #tick(awoke: boolean): void {
    const now = this.#now()
    this.store.sweep(now / 1000, sweptPerTick)
    this.#reprovider.refresh(now, awoke)
    this.#membership.tick(awoke)
  }

  #now(): number {
    return this.#options.environment.now()
  }

  #after(millis: number, run: () => void): () => void {
    if (this.#stopped) return () => undefined
    const cancel = this.#options.environment.after(millis, () => {
      this.#cancels.delete(cancel)
      run()
    })
    this.#cancels.add(cancel)
    return () => {
      this.#cancels.delete(cancel)
      cancel()
    }
  }
}
