/**
 * The DHT: who is in the network, who provides what, lookup and provide. It knows no libp2p and no clock of its own:
 * both are passed in, so that the same code runs in a cluster and in a simulation.
 *
 * The wire protocol is Kademlia's; the economy is not. A node knows everybody (`Membership`), asks the nodes closest to a
 * key in its first round (`Lookup`), and hands keys out in batches, one for each node that is to keep them (`OwnKeys`).
 */
import { type Position, positionOf } from "./Distance.ts"
import { lookup, type LookupOptions } from "./lookup/Lookup.ts"
import { type ConnectedPeer, Membership } from "./members/Membership.ts"
import { isSpeaker, type Member, type Members, toWire } from "./members/MemberTable.ts"
import { ProviderStore } from "./records/ProviderStore.ts"
import { OwnKeys } from "./records/Reprovider.ts"
import { type Message, MessageType, type WirePeer } from "./rpc/Message.ts"
import { empty, type Environment, message, NoteType, textOf, type Transport } from "./rpc/Protocol.ts"

export interface KademliaOptions {
  readonly self: { readonly id: string; readonly idBytes: Uint8Array }
  /** Multiaddrs that this node announces now. */
  readonly addresses: () => ReadonlyArray<Uint8Array>
  readonly servicePort: number
  readonly environment: Environment
  readonly transport: Transport
  /** How long a record lives that a peer of our kind sent; others send theirs less often. */
  readonly ttlMillis: number
  /** When own records are sent again. */
  readonly refreshMillis: number
}

/** Go nodes provide again every 15 minutes, so that their records have to live longer. */
const foreignTtlMillis = 20 * 60_000
const graceMillis = 60_000
const tickMillis = 5000
/** A tick that is late by so much was held up: by a stopped process or a suspended machine. */
const awokeMillis = 10_000
const newcomerMillis = 500
const newToNetworkMillis = 10_000
const sweptPerTick = 20_000

/** A provider that a lookup has found. */
export interface Provider {
  readonly id: string
  readonly addresses: ReadonlyArray<Uint8Array>
  /** The port of its registry, where it has told. */
  readonly servicePort: number | undefined
}

/** What the node keeps and has done so far. */
export interface KademliaCounts {
  readonly members: number
  readonly records: number
  readonly ownKeys: number
  readonly evictions: number
}

export class Kademlia {
  readonly store: ProviderStore
  readonly #options: KademliaOptions
  readonly #membership: Membership
  readonly #ownKeys: OwnKeys
  readonly #lookup: LookupOptions
  readonly #cancels = new Set<() => void>()
  #newcomers: Array<Member> = []
  #left = false
  #stopped = false

  constructor(options: KademliaOptions) {
    this.#options = options
    this.store = new ProviderStore(options.environment.random)
    const after = (millis: number, run: () => void) => this.#after(millis, run)
    this.#membership = new Membership({ ...options, after, onNewcomer: (member) => this.#collectNewcomer(member) })
    this.#ownKeys = new OwnKeys({ ...options, after, membership: this.#membership })
    this.#lookup = { environment: options.environment, after, membership: this.#membership }
  }

  get members(): Members {
    return this.#membership.members
  }

  get counts(): KademliaCounts {
    return {
      members: this.members.size,
      records: this.store.size,
      ownKeys: this.#ownKeys.size,
      evictions: this.#membership.evictions
    }
  }

  /** The members whose keys are this node's too. */
  neighbours(): ReadonlyArray<Member> {
    return this.#membership.region.neighbours()
  }

  /** Begins to look after members and records. */
  start(): void {
    const { random, uptime } = this.#options.environment
    let last = uptime()
    const tick = () => {
      // First of all: a tick that throws is not the last one.
      this.#after(tickMillis * (0.8 + 0.4 * random()), tick)
      const since = uptime() - last
      last += since
      this.#tick(since > awokeMillis)
    }
    this.#after(tickMillis * this.#options.environment.random(), tick)
  }

  /** Says goodbye to the peers that understand it, and provides nothing any more; goes on answering and looking up. */
  leave(): void {
    if (this.#left) return
    this.#left = true
    this.#ownKeys.clear()
    for (const member of this.members.values()) {
      if (isSpeaker(member)) this.#options.transport.tell(member, [message(NoteType.goodbye, empty)])
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
    if (!this.#stopped) this.#membership.disconnected(id)
  }

  // --- messages of peers --------------------------------------------------------------------------------------

  /**
   * Answers a message of the DHT protocol from a peer that is connected from `address`; undefined where none is due.
   * Throws on what no peer sends.
   */
  answer(from: string, address: string, { key, providers, type }: Message): Message | undefined {
    const sender = this.#membership.heardFrom(from)
    switch (type) {
      case MessageType.ping:
        return message(type, key)
      case MessageType.findNode:
        return message(type, key, this.#membership.closestHeard(positionOf(key)))
      case MessageType.getProviders:
        return message(
          type,
          key,
          this.#knowsEnough(sender) ? [] : this.#membership.closestHeard(positionOf(key)),
          this.#providersOf(key)
        )
      case MessageType.addProvider: {
        const own = providers.some(({ addresses, id }) =>
          addresses.length > 0 && this.#options.environment.idText(id) === from
        )
        // For itself a peer may speak, for others not.
        if (own) {
          const ttl = sender?.ours === false ? foreignTtlMillis : this.#options.ttlMillis + graceMillis
          // What is beyond its share is left out: it may well hold that much.
          this.store.add(key, from, address, (this.#now() + ttl) / 1000)
        }
        return undefined
      }
      default:
        throw new RangeError(`no message has type ${type}`)
    }
  }

  /** Takes a message of our own protocol. Throws on what no peer sends. */
  note(from: string, note: Message): void {
    switch (note.type) {
      case NoteType.hello:
        return this.#membership.hello(from, note)
      case NoteType.withdraw:
        return this.store.remove(note.key, from)
      case NoteType.goodbye:
        this.store.removePeer(from)
        return this.#membership.left(from)
      case NoteType.rest:
        return this.#membership.rests(from)
      default:
        throw new RangeError(`no note has type ${note.type}`)
    }
  }

  /** One of our kind that joined a while ago hears of members by other ways: twenty of them an answer is most of its cost. */
  #knowsEnough(sender: Member | undefined): boolean {
    return sender !== undefined && isSpeaker(sender) && this.#now() - sender.since > newToNetworkMillis
  }

  /** Providers to tell others of: this node itself is one of those asked, and may be the holder. */
  #providersOf(key: Uint8Array): ReadonlyArray<WirePeer> {
    const others = this.#localProviders(key).map(toWire)
    return this.#ownKeys.has(textOf(key))
      ? [{ id: this.#options.self.idBytes, addresses: this.#options.addresses() }, ...others]
      : others
  }

  #localProviders(key: Uint8Array): ReadonlyArray<Member> {
    return this.store.get(key, this.#now() / 1000)
      .flatMap((id) => this.members.get(id) ?? [])
      .toSorted(this.#lastHeardFirst)
  }

  /** A holder that answered a moment ago comes before one that may be frozen. */
  readonly #lastHeardFirst = (a: { readonly id: string }, b: { readonly id: string }): number =>
    this.#contact(b.id) - this.#contact(a.id)

  #contact(id: string): number {
    if (this.members.evictedAs(id) !== undefined) return -1
    const member = this.members.get(id)
    return member === undefined ? 0 : member.late ? -1 : member.lastHeard
  }

  // --- keys ---------------------------------------------------------------------------------------------------

  /**
   * Finds who provides a key: what this node keeps, then what the nodes closest to the key keep. `onFound` is called for
   * each provider once, and returns false when it wants no more.
   */
  async lookup(key: Uint8Array, onFound: (provider: Provider) => boolean): Promise<void> {
    const position = positionOf(key)
    const seen = new Set([this.#options.self.id])
    let wanted = true
    const found = (id: string, addresses: ReadonlyArray<Uint8Array>) => {
      if (!wanted || seen.has(id)) return
      seen.add(id)
      wanted = onFound({ id, addresses, servicePort: this.members.get(id)?.servicePort })
    }
    const local = this.#localProviders(key)
    for (const { addresses, id } of local) found(id, addresses)
    if (!wanted || this.#knowsBest(key, position, local)) return
    await lookup(this.#lookup, key, position, (providers) => {
      const named = providers.map(({ addresses, id }) => ({ addresses, id: this.#options.environment.idText(id) }))
      for (const { addresses, id } of named.toSorted(this.#lastHeardFirst)) found(id, addresses)
      return wanted
    })
  }

  /** Whether others would tell nothing new: a keeper has all records of a key, and where nobody is silent they are true. */
  #knowsBest(key: Uint8Array, position: Position, local: ReadonlyArray<Member>): boolean {
    const { region } = this.#membership
    if (local.length > 0) return local.some(({ late }) => !late) && region.isKeeper(position)
    // Of who is no member any more there may be a record: others may have heard it since.
    return region.hasEverything() && this.store.get(key, this.#now() / 1000).length === 0
  }

  /** Adds keys to what this node provides, and hands them out to their keepers. */
  async advertise(keys: ReadonlyArray<Uint8Array>): Promise<void> {
    if (!this.#left) await this.#ownKeys.advertise(keys)
  }

  /** Stops providing keys; peers of our kind forget them at once. */
  withdraw(keys: ReadonlyArray<Uint8Array>): void {
    this.#ownKeys.withdraw(keys)
  }

  // --- time ---------------------------------------------------------------------------------------------------

  #collectNewcomer(member: Member): void {
    this.#newcomers.push(member)
    if (this.#newcomers.length > 1) return
    this.#after(newcomerMillis, () => {
      const newcomers = new Set(this.#newcomers)
      this.#newcomers = []
      this.#ownKeys.handToNewcomers(newcomers)
    })
  }

  #tick(awoke: boolean): void {
    const now = this.#now()
    this.store.sweep(now / 1000, sweptPerTick)
    this.#ownKeys.refresh(now, awoke)
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
