/**
 * Keeps the table of members true: gets to know those that others tell of, tells others of newcomers, and finds out who
 * has gone.
 */
import { closest, positionOf } from "../Distance.ts"
import { type Message, MessageType, type WirePeer } from "../rpc/Message.ts"
import {
  empty,
  type Environment,
  isUnreachable,
  message,
  NoteType,
  replication,
  type Transport
} from "../rpc/Protocol.ts"
import { Acquaintance } from "./Introductions.ts"
import { isKnown, isSpeaker, mark, type Member, Members, type PeerRecord, roundTripOf, toWire } from "./MemberTable.ts"
import { everybodyUpTo, Region } from "./Neighbourhood.ts"

export interface MembershipOptions {
  readonly self: { readonly id: string; readonly idBytes: Uint8Array }
  readonly servicePort: number
  readonly environment: Environment
  readonly transport: Transport
  /** When own records are sent again. */
  readonly refreshMillis: number
  /** Calls back later, unless the node has stopped by then. */
  readonly after: (millis: number, run: () => void) => void
  /** A member counts from now on. */
  readonly onNewcomer: (member: Member) => void
}

/** What a peer says of itself on a new connection. */
export interface ConnectedPeer extends PeerRecord {
  readonly agent: string | undefined
  readonly ours: boolean
}

const silenceMillis = 15_000
const pingsAtOnce = 8
/** Between two pings of a turn: a lookup must not wait behind a burst of them. */
const pingPauseMillis = 50
const retriesAtOnce = 8
const newsMillis = 100
/** Who hears news from this node, where others know it too; they hear it from others. */
const newsReaders = 4
/** Who hears of a peer that came to this node first. */
const freshNewsReaders = 128
const probeMillis = 125
const verifyTimeoutMillis = 5000
/** A ping may take as long as a busy node needs; a lookup does not wait for it. */
const pingTimeoutMillis = 1000
/** Deadline of a lookup's request: four times what the member usually needs, within these. */
const minQueryMillis = 50
const maxQueryMillis = 400
const maxHelloPeers = 50
/** Lists of all members that are sent in a second. */
const maxListsPerSecond = 50
/** Who knows this share of what another knows has no need of a list. */
const nearlyAll = 0.9
/** A peer that one other told of, and nobody since, is forgotten. */
const rumourMillis = 10 * 60_000

export class Membership {
  readonly members: Members
  readonly region: Region
  /** Members that were taken out because they did not answer. */
  evictions = 0
  readonly #options: MembershipOptions
  readonly #position: Uint8Array
  #news: Array<Member> = []
  readonly #acquaintance: Acquaintance
  #lists = { second: 0, sent: 0 }

  constructor(options: MembershipOptions) {
    this.#options = options
    this.members = new Members(options.environment.siteOf)
    this.#position = positionOf(options.self.idBytes)
    this.region = new Region({
      position: this.#position,
      members: this.members,
      now: options.environment.now,
      refreshMillis: options.refreshMillis
    })
    this.#acquaintance = new Acquaintance({
      known: () => this.members.size,
      isWanted: (member) => !this.region.isFar(member),
      meet: (member) => this.#meet(member),
      now: options.environment.now,
      random: options.environment.random,
      after: options.after
    })
  }

  /** Members that were heard, the closest to `target` first. */
  closestHeard(target: Uint8Array): ReadonlyArray<WirePeer> {
    return closest(target, this.members.values(), replication, ({ lastHeard }) => lastHeard > 0).map(toWire)
  }

  // --- who comes ----------------------------------------------------------------------------------------------

  /** A peer has connected and said who it is: it is a member when it has answered. */
  connected(peer: ConnectedPeer): void {
    if (peer.id === this.#options.self.id) return
    const candidate = this.members.get(peer.id) ?? this.members.candidate(peer)
    // Go lets those into its table that look for themselves, and answers with others.
    const question = peer.ours
      ? message(MessageType.ping, empty)
      : message(MessageType.findNode, this.#options.self.idBytes)
    void this.#options.transport.request(candidate, question, verifyTimeoutMillis).then(({ closer }) => {
      this.#accept(peer)
      this.told(closer, peer.id)
    }, () => undefined)
  }

  #accept(peer: ConnectedPeer): void {
    const heard = this.members.heard(peer, this.#now())
    if (heard === undefined) return
    const { isNew, member } = heard
    member.agent = peer.agent
    member.ours = peer.ours
    member.resting = false
    if (isNew) this.#welcome(member)
    if (member.ours) this.#options.transport.tell(member, [this.#hello([])])
  }

  /** A peer has sent something. One that was taken out is tried again: it is there, but may not answer. */
  heardFrom(id: string): Member | undefined {
    const member = this.members.get(id)
    if (member !== undefined && member.lastHeard > 0) this.heard(member)
    const evicted = this.members.takeTurn(id, this.#now())
    if (evicted !== undefined) void this.ping(evicted)
    return member
  }

  heard(member: Member): void {
    const heard = this.members.heard(member, this.#now())
    if (heard?.isNew === true) this.#welcome(heard.member)
  }

  #welcome(member: Member): void {
    if (!member.vouched) this.#options.onNewcomer(member)
    this.#news.push(member)
    if (this.#news.length === 1) this.#options.after(newsMillis, () => this.#spreadNews())
  }

  /** `voucher` told of these; gives those that are news. They are passed on to others when they were heard. */
  told(peers: ReadonlyArray<WirePeer>, voucher: string): ReadonlyArray<Member> {
    const news: Array<Member> = []
    for (const { addresses, id: idBytes } of peers) {
      const id = this.#options.environment.idText(idBytes)
      if (id === this.#options.self.id || id === voucher) continue
      const known = this.members.get(id)
      if (known !== undefined && isKnown(known)) continue
      const usable = this.#options.environment.usable(addresses)
      if (usable.length === 0) continue
      const peer = this.#options.environment.keep(id, { id: idBytes, addresses: usable })
      const member = this.members.told(peer, voucher, this.#now())
      if (member === undefined) continue
      if (member.vouched) this.#options.onNewcomer(member)
      else news.push(member)
    }
    this.#acquaintance.add(news)
    return news
  }

  async #meet(member: Member): Promise<void> {
    await this.request(member, message(MessageType.ping, empty), verifyTimeoutMillis).catch(() =>
      this.#evict(member, { retry: false })
    )
  }

  // --- news ---------------------------------------------------------------------------------------------------

  /** The same on two nodes that have heard of each other and of the same others. */
  get #fingerprint(): number {
    return this.members.fingerprint ^ mark(this.#position)
  }

  #hello(peers: ReadonlyArray<Member>): Message {
    const key = Buffer.alloc(8)
    key.writeUInt16BE(this.#options.servicePort)
    key.writeInt32BE(this.#fingerprint, 2)
    key.writeUInt16BE(this.members.size, 6)
    return message(NoteType.hello, key, peers.map(toWire))
  }

  /** Nobody told of a peer that came here first: all are to hear of it. Of others a few, lest all tell all of all. */
  #spreadNews(): void {
    const news = this.#news
    this.#news = []
    const fresh = news.filter(({ voucher }) => voucher === undefined)
    this.#tellSome(fresh, freshNewsReaders)
    this.#tellSome(news.filter((member) => !fresh.includes(member)), newsReaders)
  }

  #tellSome(news: ReadonlyArray<Member>, count: number): void {
    const hellos = this.#hellos(news)
    // Those that came together are news to each other.
    const readers = this.#speakers()
    for (let told = 0; told < count && readers.length > 0 && hellos.length > 0; told++) {
      const [reader] = readers.splice(Math.floor(this.#random() * readers.length), 1)
      if (reader !== undefined) this.#options.transport.tell(reader, hellos)
    }
  }

  #hellos(peers: ReadonlyArray<Member>): ReadonlyArray<Message> {
    const messages: Array<Message> = []
    for (let from = 0; from < peers.length; from += maxHelloPeers) {
      messages.push(this.#hello(peers.slice(from, from + maxHelloPeers)))
    }
    return messages
  }

  /** Takes a hello; a peer that has heard others than this node is told of all. */
  hello(from: string, { closer, key }: Message): void {
    const member = this.heardFrom(from)
    if (member === undefined || key.length !== 8) return
    const view = Buffer.from(key.buffer, key.byteOffset, key.length)
    member.ours = true
    member.servicePort = view.readUInt16BE()
    const theirs = view.readInt32BE(2)
    this.told(closer, from)
    // News is no question: two nodes that differ would answer each other for ever.
    if (closer.length > 0 || theirs === this.#fingerprint) return
    if (view.readUInt16BE(6) > this.members.size * nearlyAll && this.#random() > this.#listShare()) return
    if (!this.#mayList()) return
    const others = [...this.members.values()].filter((other) => other.lastHeard > 0 && other !== member)
    if (others.length > 0) this.#options.transport.tell(member, this.#hellos(others))
  }

  /** A list of all costs more where there are more: who has nearly all is sent it less often in a large network. */
  #listShare(): number {
    return everybodyUpTo / this.members.size
  }

  #random(): number {
    return this.#options.environment.random()
  }

  #mayList(): boolean {
    const second = Math.floor(this.#now() / 1000)
    if (second !== this.#lists.second) this.#lists = { second, sent: 0 }
    return this.#lists.sent++ < maxListsPerSecond
  }

  /** Members of our kind that were heard. */
  #speakers(): Array<Member> {
    return [...this.members.values()].filter(isSpeaker)
  }

  // --- who goes -----------------------------------------------------------------------------------------------

  /** The connection to a peer has ended: it is gone, unless it rests or answers. */
  disconnected(id: string): void {
    const member = this.members.get(id)
    if (member === undefined || member.resting) return
    // Lookups ask others until it is known.
    member.late = true
    const probe = () => this.#options.transport.request(member, message(MessageType.ping, empty), probeMillis)
    void probe()
      .catch((error: unknown) => isUnreachable(error) ? Promise.reject(error) : probe())
      .then(() => {
        member.late = false
        this.heard(member)
      }, () => this.#evict(member, { retry: true }))
  }

  /** A member has said that it stops; it may come back at the same place. */
  left(id: string): void {
    this.members.evict(id, this.#now(), { retry: true, left: true })
  }

  /** A member closes its connection to spare it. */
  rests(id: string): void {
    const member = this.members.get(id)
    if (member !== undefined) member.resting = true
  }

  #evict(member: Member, options: { readonly retry: boolean }): void {
    if (this.members.get(member.id) !== member) return
    this.evictions++
    this.members.evict(member.id, this.#now(), options)
  }

  failed(member: Member, error: unknown): void {
    member.timeouts++
    member.late = true
    if (isUnreachable(error) || member.timeouts >= 2) {
      this.#evict(member, { retry: true })
    }
  }

  /** Looks after those that were silent, and tries some of those that went. `awoke`: nobody was heard for a while. */
  tick(awoke: boolean): void {
    const now = this.#now()
    if (awoke) this.region.awoke()
    this.members.forgetRumours(now - rumourMillis)
    const silent = this.region.watched().filter(({ lastHeard, late }) =>
      lastHeard > 0 && (awoke || late || now - lastHeard > silenceMillis)
    )
    const work = [...silent, ...this.members.dueForRetry(now, retriesAtOnce)]
    const ping = async () => {
      for (let member = work.pop(); member !== undefined; member = work.pop()) {
        await this.ping(member)
        await new Promise<void>((resolve) => this.#options.after(pingPauseMillis, resolve))
      }
    }
    const pings = Math.min(pingsAtOnce, work.length)
    for (let turn = 0; turn < pings; turn++) {
      this.#options.after(turn * pingPauseMillis / pingsAtOnce, () => void ping())
    }
    this.#compare()
  }

  /** Compares notes with somebody, so that who missed some news hears of it. */
  #compare(): void {
    if (this.#random() > this.#listShare()) return
    const speakers = this.#speakers()
    const somebody = speakers[Math.floor(this.#random() * speakers.length)]
    if (somebody !== undefined) this.#options.transport.tell(somebody, [this.#hello([])])
    // Members that nobody of our kind tells of are found by looking where this node lies.
    const [neighbour] = this.members.closest(this.#position, 1)
    if (neighbour !== undefined && !neighbour.ours) {
      void this.request(neighbour, message(MessageType.findNode, this.#options.self.idBytes))
        .then(({ closer }) => this.told(closer, neighbour.id), () => undefined)
    }
  }

  // --- requests -----------------------------------------------------------------------------------------------

  /** Pings a member; one that is silent is asked a second time before it counts as gone. */
  async ping(member: Member): Promise<void> {
    const once = () => this.request(member, message(MessageType.ping, empty))
    await once().catch(() => this.members.get(member.id) === member ? once() : undefined).catch(() => undefined)
  }

  /**
   * Asks a member for a lookup, with a time limit of four times what it usually needs. One that is late may be busy: it is
   * pinged before it counts as silent.
   */
  async query(member: Member, query: Message): Promise<Message> {
    const sent = this.#now()
    const limit = Math.min(maxQueryMillis, Math.max(minQueryMillis, 4 * roundTripOf(member)))
    try {
      const answer = await this.#options.transport.request(member, query, limit)
      this.#measured(member, sent)
      return answer
    } catch (error) {
      // Slower next time: one late answer must not make every later one late.
      member.roundTrip = Math.min(maxQueryMillis / 4, 2 * roundTripOf(member))
      if (isUnreachable(error)) this.#evict(member, { retry: true })
      else if (!member.late) {
        member.late = true
        void this.ping(member)
      }
      throw error
    }
  }

  /** Asks a member and draws the conclusions. */
  async request(member: Member, message: Message, timeoutMillis = pingTimeoutMillis): Promise<Message> {
    const sent = this.#now()
    try {
      const answer = await this.#options.transport.request(member, message, timeoutMillis)
      this.#measured(member, sent)
      return answer
    } catch (error) {
      this.failed(member, error)
      throw error
    }
  }

  #measured(member: Member, sent: number): void {
    const took = this.#now() - sent
    member.roundTrip = member.roundTrip === undefined ? took : 0.8 * member.roundTrip + 0.2 * took
    member.timeouts = 0
    member.late = false
    this.heard(member)
  }

  #now(): number {
    return this.#options.environment.now()
  }
}
