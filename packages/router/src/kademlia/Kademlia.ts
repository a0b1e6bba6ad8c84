/**
 * The DHT: who is in the network, who provides what, lookup and provide. It knows no libp2p and no clock of its own:
 * both are passed in, so that the same code runs in a cluster and in a simulation.
 *
 * The wire protocol is Kademlia's; the economy is not. A node knows everybody (`Members`), asks the nodes closest to a
 * key in its first round, and hands keys out in batches, one for each node that is to keep them.
 */
import { closest, positionOf } from "./Distance.ts"
import { type Member, Members } from "./Members.ts"
import { type Message, MessageType, type WirePeer } from "./Message.ts"
import { OwnKeys } from "./OwnKeys.ts"
import {
  empty,
  type Environment,
  message,
  NoteType,
  replication,
  RequestFailed,
  textOf,
  type Transport
} from "./Protocol.ts"
import { ProviderStore } from "./ProviderStore.ts"

export interface KademliaOptions {
  readonly self: { readonly id: string; readonly idBytes: Uint8Array }
  /** Multiaddrs that this node announces now. */
  readonly addresses: () => ReadonlyArray<Uint8Array>
  readonly registryPort: number
  readonly environment: Environment
  readonly transport: Transport
  /** How long a record lives that a peer of our kind sent; others send theirs less often. */
  readonly ttlMillis: number
  /** When own records are sent again. */
  readonly refreshMillis: number
}

/** Who is asked for one: a miss is certain when these have answered. */
const askAtOnce = 3
const maxAsked = 8
/** Go nodes provide again every 15 minutes, so that their records have to live longer. */
const foreignTtlMillis = 20 * 60_000
const graceMillis = 60_000
const tickMillis = 5000
const silenceMillis = 15_000
const minQueryMillis = 50
const maxQueryMillis = 400
const pingsAtOnce = 8
const newcomerMillis = 500
const newsMillis = 100
const probeMillis = 125
const verifyDelayMillis = 1000
const verifyTimeoutMillis = 5000
const minPauseMillis = 10
const pauseShare = 4
/** A ping may take as long as a busy node needs; a lookup does not wait for it. */
const pingTimeoutMillis = 1000
const maxHelloPeers = 50
const sweptPerTick = 20_000

const toWire = ({ addresses, idBytes }: Member): WirePeer => ({ id: idBytes, addresses })

/** A provider that a lookup has found. */
export interface Provider {
  readonly id: string
  readonly addresses: ReadonlyArray<Uint8Array>
  /** The port of its registry, where it has told. */
  readonly registryPort: number | undefined
}

export class Kademlia {
  readonly members = new Members()
  readonly store = new ProviderStore()
  readonly #options: KademliaOptions
  readonly #self: { readonly position: Uint8Array; readonly id: string }
  readonly #ownKeys: OwnKeys
  readonly #cancels = new Set<() => void>()
  #newcomers: Array<Member> = []
  #news: Array<Member> = []
  #unverified: Array<Member> = []
  #verifying = false
  #stopped = false

  constructor(options: KademliaOptions) {
    this.#options = options
    this.#self = { position: positionOf(options.self.idBytes), id: options.self.id }
    this.#ownKeys = new OwnKeys({
      ...options,
      members: this.members,
      heard: (member) => this.#heard(member),
      failed: (member, error) => this.#failed(member, error),
      after: (millis, run) => this.#after(millis, run)
    })
  }

  get ownKeys(): number {
    return this.#ownKeys.size
  }

  /** Begins to look after members and records. */
  start(): void {
    const tick = () => {
      this.#tick()
      this.#after(tickMillis * (0.8 + 0.4 * this.#options.environment.random()), tick)
    }
    this.#after(tickMillis * this.#options.environment.random(), tick)
  }

  /** Says goodbye to the peers that understand it, and stops. */
  stop(): void {
    for (const member of this.members.values()) {
      if (member.ours && member.lastHeard > 0) this.#options.transport.tell(member, [message(NoteType.goodbye, empty)])
    }
    this.#stopped = true
    for (const cancel of this.#cancels) cancel()
  }

  // --- membership ---------------------------------------------------------------------------------------------

  /** A peer has connected and said who it is. */
  connected(
    peer: {
      readonly id: string
      readonly idBytes: Uint8Array
      readonly addresses: ReadonlyArray<Uint8Array>
      readonly agent: string | undefined
      readonly ours: boolean
    }
  ): void {
    if (peer.id === this.#self.id || this.#stopped) return
    const { isNew, member } = this.members.heard(peer, this.#now())
    member.agent = peer.agent
    member.ours = peer.ours
    if (!isNew) return
    this.#collect(this.#newcomers, member, newcomerMillis, () => this.#provideToNewcomers())
    this.#collect(this.#news, member, newsMillis, () => this.#spreadNews())
    if (member.ours) {
      this.#options.transport.tell(
        member,
        this.#hello([...this.members.values()].filter(({ lastHeard }) => lastHeard > 0))
      )
    } else {
      // A peer that is let into the tables of others asks for itself first, and this one may be new to it.
      void this.#request(member, message(MessageType.findNode, this.#options.self.idBytes)).catch(() => undefined)
    }
  }

  /** The connection to a peer has ended: it is gone, unless it answers. */
  disconnected(id: string): void {
    const member = this.members.get(id)
    if (member === undefined || this.#stopped) return
    const probe = () => this.#options.transport.request(member, message(MessageType.ping, empty), probeMillis)
    void probe().catch(probe).then(
      () => this.#heard(member),
      () => this.#evict(member, true)
    )
  }

  #heard(member: Member): void {
    const { isNew } = this.members.heard(member, this.#now())
    if (isNew) this.#collect(this.#newcomers, member, newcomerMillis, () => this.#provideToNewcomers())
  }

  #evict(member: Member, retry: boolean): void {
    this.members.evict(member.id, this.#now(), { retry })
  }

  /** Others told of these; they count for lookups at once, and are passed on when they were heard. */
  #told(peers: ReadonlyArray<WirePeer>): void {
    for (const { addresses, id: idBytes } of peers) {
      const id = this.#options.environment.idText(idBytes)
      if (id === this.#self.id || addresses.length === 0) continue
      // Copied: the views would keep whole frames alive.
      const peer = { id, idBytes: idBytes.slice(), addresses: addresses.map((address) => address.slice()) }
      if (!this.members.told(peer)) continue
      const member = this.members.get(id)
      if (member !== undefined) this.#unverified.push(member)
    }
    this.#verify()
  }

  /**
   * Gets to know members that others told of, one after the other, with pauses in proportion to what it costs: when a
   * whole cluster starts, the first connections of all come before the many between all.
   */
  #verify(): void {
    if (this.#verifying) return
    this.#verifying = true
    const next = async () => {
      let member = this.#unverified.shift()
      while (member !== undefined && member.lastHeard > 0) member = this.#unverified.shift()
      if (member === undefined) {
        this.#verifying = false
        return
      }
      const unheard = member
      const begun = this.#now()
      await this.#request(unheard, message(MessageType.ping, empty), verifyTimeoutMillis).catch(() =>
        this.#evict(unheard, false)
      )
      this.#after(minPauseMillis + pauseShare * (this.#now() - begun), () => void next())
    }
    this.#after(verifyDelayMillis * (1 + this.#options.environment.random()), () => void next())
  }

  #hello(peers: ReadonlyArray<Member>): ReadonlyArray<Message> {
    const port = Uint8Array.of(this.#options.registryPort >> 8, this.#options.registryPort & 0xff)
    const messages: Array<Message> = []
    for (let from = 0; from === 0 || from < peers.length; from += maxHelloPeers) {
      messages.push(message(NoteType.hello, port, peers.slice(from, from + maxHelloPeers).map(toWire)))
    }
    return messages
  }

  #spreadNews(): void {
    const news = this.#news
    this.#news = []
    const hello = this.#hello(news)
    for (const member of this.members.values()) {
      if (member.ours && member.lastHeard > 0 && !news.includes(member)) this.#options.transport.tell(member, hello)
    }
  }

  // --- messages of peers --------------------------------------------------------------------------------------

  /** Answers a message of the DHT protocol; undefined where none is due. Throws on what no peer sends. */
  answer(from: string, { key, providers, type }: Message): Message | undefined {
    const sender = this.members.get(from)
    if (sender !== undefined) this.#heard(sender)
    switch (type) {
      case MessageType.ping:
        return message(type, key)
      case MessageType.findNode:
        return message(type, key, this.#closestHeard(key))
      case MessageType.getProviders:
        return message(type, key, this.#closestHeard(key), this.#providersOf(textOf(key)))
      case MessageType.addProvider: {
        const own = providers.some(({ addresses, id }) =>
          addresses.length > 0 && this.#options.environment.idText(id) === from
        )
        // For itself a peer may speak, for others not.
        if (own) {
          const ttl = sender?.ours === false ? foreignTtlMillis : this.#options.ttlMillis + graceMillis
          this.store.add(textOf(key), from, (this.#now() + ttl) / 1000)
        }
        return undefined
      }
      default:
        throw new RangeError(`no message has type ${type}`)
    }
  }

  /** Takes a message of our own protocol. */
  note(from: string, { closer, key, type }: Message): void {
    const member = this.members.get(from)
    switch (type) {
      case NoteType.hello:
        if (member !== undefined && key.length === 2) {
          this.#heard(member)
          member.ours = true
          member.registryPort = (key[0] ?? 0) * 256 + (key[1] ?? 0)
        }
        this.#told(closer)
        return
      case NoteType.withdraw:
        this.store.remove(textOf(key), from)
        return
      case NoteType.goodbye:
        this.store.removePeer(from)
        if (member !== undefined) this.#evict(member, false)
        return
      default:
        throw new RangeError(`no note has type ${type}`)
    }
  }

  /** Providers to tell others of: this node itself is one of those asked, and may be the holder. */
  #providersOf(key: string): ReadonlyArray<WirePeer> {
    const others = this.#localProviders(key).map(toWire)
    return this.#ownKeys.has(key)
      ? [{ id: this.#options.self.idBytes, addresses: this.#options.addresses() }, ...others]
      : others
  }

  #closestHeard(key: Uint8Array): ReadonlyArray<WirePeer> {
    return this.members.closest(positionOf(key), replication).filter(({ lastHeard }) => lastHeard > 0).map(toWire)
  }

  #localProviders(key: string): ReadonlyArray<Member> {
    return this.store.get(key, this.#now() / 1000)
      .flatMap((id) => this.members.get(id) ?? [])
      .toSorted((a, b) => b.lastHeard - a.lastHeard)
  }

  // --- lookup -------------------------------------------------------------------------------------------------

  /**
   * Finds who provides a key: what this node keeps, then what the nodes closest to the key keep. `onFound` is called for
   * each provider once, and returns false when it wants no more.
   */
  async lookup(key: Uint8Array, onFound: (provider: Provider) => boolean): Promise<void> {
    const position = positionOf(key)
    const seen = new Set([this.#self.id])
    let wanted = true
    const found = (id: string, addresses: ReadonlyArray<Uint8Array>) => {
      if (!wanted || seen.has(id)) return
      seen.add(id)
      wanted = onFound({ id, addresses, registryPort: this.members.get(id)?.registryPort })
    }
    const local = this.#localProviders(textOf(key))
    for (const { addresses, id } of local) found(id, addresses)
    // A node that is to keep the key's records keeps all of them.
    const keeper = this.members.size < replication || this.#isKeeper(position)
    if (!wanted || (local.length > 0 && keeper)) return

    const candidates = this.members.closest(position, maxAsked)
    const ask = async (): Promise<void> => {
      for (let member = candidates.shift(); member !== undefined; member = candidates.shift()) {
        if (!wanted) return
        try {
          const { closer, providers } = await this.#query(member, message(MessageType.getProviders, key))
          const heard = ({ id }: { readonly id: string }) => this.members.get(id)?.lastHeard ?? 0
          providers.map(({ addresses, id }) => ({ addresses, id: this.#options.environment.idText(id) }))
            .toSorted((a, b) => heard(b) - heard(a))
            .forEach(({ addresses, id }) => found(id, addresses))
          this.#told(closer)
          return
        } catch {
          // The next closest is asked in its place.
        }
      }
    }
    await Promise.all(Array.from({ length: askAtOnce }, ask))
  }

  #isKeeper(position: Uint8Array): boolean {
    return closest(
      position,
      [{ position: this.#self.position }, ...this.members.closest(position, replication)],
      replication
    )
      .some((keeper) => keeper.position === this.#self.position)
  }

  // --- own keys -----------------------------------------------------------------------------------------------

  /** Adds keys to what this node provides, and hands them out to their keepers. */
  advertise(keys: ReadonlyArray<Uint8Array>): Promise<void> {
    return this.#ownKeys.advertise(keys)
  }

  /** Stops providing keys; peers of our kind forget them at once. */
  withdraw(keys: ReadonlyArray<Uint8Array>): void {
    this.#ownKeys.withdraw(keys)
  }

  #provideToNewcomers(): void {
    const newcomers = new Set(this.#newcomers)
    this.#newcomers = []
    this.#ownKeys.handToNewcomers(newcomers)
  }

  // --- time ---------------------------------------------------------------------------------------------------

  #tick(): void {
    const now = this.#now()
    this.store.sweep(now / 1000, sweptPerTick)
    this.#ownKeys.refresh(now)
    const silent = [...this.members.values()].filter(({ lastHeard }) =>
      lastHeard > 0 && now - lastHeard > silenceMillis
    )
    const work = [...silent, ...this.members.dueForRetry(now, 4)]
    const ping = async () => {
      for (let member = work.pop(); member !== undefined; member = work.pop()) {
        await this.#ping(member)
      }
    }
    for (let pings = 0; pings < pingsAtOnce; pings++) void ping()
    // Members that nobody of our kind tells of are found by looking where this node lies.
    const [neighbour] = this.members.closest(this.#self.position, 1)
    if (neighbour !== undefined && !neighbour.ours) {
      void this.#request(neighbour, message(MessageType.findNode, this.#options.self.idBytes))
        .then(({ closer }) => this.#told(closer)).catch(() => undefined)
    }
  }

  /**
   * Asks a member for a lookup, with a time limit of four times what it usually needs. One that is late may be busy: it is
   * pinged before it counts as silent.
   */
  async #query(member: Member, query: Message): Promise<Message> {
    try {
      return await this.#options.transport.request(
        member,
        query,
        Math.min(maxQueryMillis, Math.max(minQueryMillis, 4 * member.roundTrip))
      )
    } catch (error) {
      // Slower next time: one late answer must not make every later one late.
      member.roundTrip = Math.min(maxQueryMillis / 4, 2 * member.roundTrip)
      if (error instanceof RequestFailed && error.unreachable) this.#evict(member, true)
      else void this.#ping(member)
      throw error
    }
  }

  async #ping(member: Member): Promise<void> {
    await this.#request(member, message(MessageType.ping, empty)).catch(() => undefined)
  }

  /** Asks a member and draws the conclusions. */
  async #request(member: Member, message: Message, timeoutMillis?: number): Promise<Message> {
    const sent = this.#now()
    try {
      const limit = timeoutMillis ?? pingTimeoutMillis
      const answer = await this.#options.transport.request(member, message, limit)
      member.roundTrip = 0.8 * member.roundTrip + 0.2 * (this.#now() - sent)
      this.#heard(member)
      return answer
    } catch (error) {
      this.#failed(member, error)
      throw error
    }
  }

  #failed(member: Member, error: unknown): void {
    member.timeouts++
    if ((error instanceof RequestFailed && error.unreachable) || member.timeouts >= 2) this.#evict(member, true)
  }

  #now(): number {
    return this.#options.environment.now()
  }

  #collect(list: Array<Member>, member: Member, millis: number, run: () => void): void {
    list.push(member)
    if (list.length === 1) this.#after(millis, run)
  }

  #after(millis: number, run: () => void): void {
    if (this.#stopped) return
    const cancel = this.#options.environment.after(millis, () => {
      this.#cancels.delete(cancel)
      run()
    })
    this.#cancels.add(cancel)
  }
}
