/**
 * Keeps the table of members up to date. Peers enter it when they have answered, or when two others named them; `Gossip` tells
 * other nodes of them, `Introductions` meets the ones that gossip named, and `FailureDetector` evicts those that are gone.
 */
import { closest, positionOf } from "../Distance.ts"
import { type Message, MessageType, type WirePeer } from "../rpc/Message.ts"
import { type Core, empty, message, replication } from "../rpc/Protocol.ts"
import { FailureDetector } from "./FailureDetector.ts"
import { Gossip } from "./Gossip.ts"
import { Introductions } from "./Introductions.ts"
import { type HeardPeer, isKnown, type Member, MemberTable, type ProvedFacts, toWire } from "./MemberTable.ts"
import { Neighbourhood } from "./Neighbourhood.ts"

export interface MembershipOptions extends Core {
  readonly self: { readonly id: string; readonly idBytes: Uint8Array }
  /** Port of the service beside this router; 0 for none. */
  readonly servicePort: number
  /** How often own records are sent again. */
  readonly refreshMillis: number
  /** A member counts from now on. */
  readonly onNewcomer: (member: Member) => void
}

/** A peer's own description on a new connection. */
export interface ConnectedPeer extends HeardPeer {
  readonly agent: string | undefined
  /** Whether it speaks our gossip protocol. */
  readonly ours: boolean
  /** What it has proved on this connection; absent if that is nothing. */
  readonly proof?: ProvedFacts
}

const verifyTimeoutMillis = 5000
/** A peer that only one witness named is forgotten after this long. */
const rumourMillis = 10 * 60_000
const helloKeyLength = 8

export class Membership {
  readonly members: MemberTable
  readonly neighbourhood: Neighbourhood
  readonly detector: FailureDetector
  readonly #options: MembershipOptions
  readonly #position: Uint8Array
  readonly #gossip: Gossip
  readonly #introductions: Introductions

  constructor(options: MembershipOptions) {
    const { after, environment, refreshMillis, self, servicePort, transport } = options
    const core: Core = { after, environment, transport }
    this.#options = options
    this.#position = positionOf(self.idBytes)
    const position = this.#position
    const members = this.members = new MemberTable(environment.groupOf)
    const neighbourhood = this.neighbourhood = new Neighbourhood({
      position,
      members,
      now: environment.now,
      refreshMillis
    })
    this.detector = new FailureDetector({
      ...core,
      members,
      neighbourhood,
      onHeard: (member) => this.heard(member)
    })
    this.#gossip = new Gossip({ ...core, position, servicePort, members })
    this.#introductions = new Introductions({
      known: () => members.size,
      isWanted: (member) => !neighbourhood.isFar(member),
      meet: (member) => this.#meet(member),
      now: environment.now,
      random: environment.random,
      after
    })
  }

  /** Members that were heard from, the closest to `target` first. */
  closestHeard(target: Uint8Array): ReadonlyArray<WirePeer> {
    return closest(target, this.members.values(), replication, ({ lastHeard }) => lastHeard > 0).map(toWire)
  }

  // --- joining ------------------------------------------------------------------------------------------------

  /** A peer has connected and said who it is. It becomes a member when it has answered. */
  connected(peer: ConnectedPeer): void {
    if (peer.id === this.#options.self.id) return
    if (peer.proof !== undefined && !this.members.proved(peer, peer.proof)) return
    const candidate = this.members.get(peer.id) ?? this.members.candidate(peer)
    // A Go node lets a peer into its table that searches for its own id, and answers with other members.
    const question = peer.ours
      ? message(MessageType.ping, empty)
      : message(MessageType.findNode, this.#options.self.idBytes)
    void this.#options.transport.request(candidate, question, verifyTimeoutMillis).then(({ closer }) => {
      this.#accept(peer)
      this.learn(closer, peer.id)
    }, () => undefined)
  }

  #accept(peer: ConnectedPeer): void {
    const heard = this.members.heard(peer, this.#now())
    if (heard === undefined) return
    const { isNew, member } = heard
    member.agent = peer.agent
    member.ours = peer.ours
    member.proof = peer.proof
    if (peer.proof !== undefined) member.servicePort = peer.proof.servicePort
    member.resting = false
    if (isNew) this.#welcome(member)
    if (member.ours) this.#gossip.greet(member)
  }

  /** A peer has sent something. If it was evicted, it is pinged: it is there, but may not answer. */
  heardFrom(id: string): Member | undefined {
    const member = this.members.get(id)
    if (member !== undefined && member.lastHeard > 0) this.heard(member)
    const evicted = this.members.takeTurn(id, this.#now())
    if (evicted !== undefined) void this.detector.ping(evicted)
    return member
  }

  /** A member has shown that it is there. */
  heard(member: Member): void {
    const heard = this.members.heard(member, this.#now())
    if (heard?.isNew === true) this.#welcome(heard.member)
  }

  #welcome(member: Member): void {
    if (!member.corroborated) this.#options.onNewcomer(member)
    this.#gossip.spread(member)
  }

  /** `witness` named these peers; returns the new ones. They are passed on to others only when this node heard from them. */
  learn(peers: ReadonlyArray<WirePeer>, witness: string): ReadonlyArray<Member> {
    const { environment, onNewcomer, self } = this.#options
    const news: Array<Member> = []
    for (const { addresses, id: idBytes } of peers) {
      const id = environment.idText(idBytes)
      if (id === self.id || id === witness) continue
      const known = this.members.get(id)
      if (known !== undefined && isKnown(known)) continue
      const usable = environment.usable(addresses)
      if (usable.length === 0) continue
      const member = this.members.learn(
        environment.record(id, { id: idBytes, addresses: usable }),
        witness,
        this.#now()
      )
      if (member === undefined) continue
      if (member.corroborated) onNewcomer(member)
      else news.push(member)
    }
    this.#introductions.add(news)
    return news
  }

  async #meet(member: Member): Promise<void> {
    await this.detector.request(member, message(MessageType.ping, empty), verifyTimeoutMillis).catch(() =>
      this.detector.evict(member, { retry: false })
    )
  }

  // --- gossip and time ----------------------------------------------------------------------------------------

  /** Takes a hello from a peer. */
  hello(from: string, hello: Message): void {
    const sender = this.heardFrom(from)
    if (sender === undefined || hello.key.length !== helloKeyLength) return
    this.learn(hello.closer, from)
    this.#gossip.receive(sender, hello)
  }

  /** A member has said goodbye. It may come back at the same address. */
  left(id: string): void {
    this.members.evict(id, this.#now(), { retry: true, left: true })
  }

  /** A member is about to close its unused connection. */
  rests(id: string): void {
    const member = this.members.get(id)
    if (member !== undefined) member.resting = true
  }

  /** Called every few seconds; `awoke` if the node was suspended since the last call. */
  tick(awoke: boolean): void {
    if (awoke) this.neighbourhood.awoke()
    this.members.forgetRumours(this.#now() - rumourMillis)
    this.detector.check(awoke)
    if (!this.#gossip.hasTurn()) return
    this.#gossip.compare()
    this.#askForeignNeighbour()
  }

  /** Nodes of other implementations do not gossip. A search for this node's own position finds those around it. */
  #askForeignNeighbour(): void {
    const [neighbour] = this.members.closest(this.#position, 1)
    if (neighbour === undefined || neighbour.ours) return
    void this.detector.request(neighbour, message(MessageType.findNode, this.#options.self.idBytes))
      .then(({ closer }) => this.learn(closer, neighbour.id), () => undefined)
  }

  #now(): number {
    return this.#options.environment.now()
  }
}
