/**
 * Spreads the membership: tells other nodes of new members, and compares fingerprints with random ones, so that a node that
 * missed some gossip is sent the whole list.
 */
import type { Message } from "../rpc/Message.ts"
import { type Core, GossipType, message } from "../rpc/Protocol.ts"
import { isSpeaker, mark, type Member, type MemberTable, toWire } from "./MemberTable.ts"
import { everybodyUpTo } from "./Neighbourhood.ts"

export interface GossipOptions extends Core {
  /** This node's own position. */
  readonly position: Uint8Array
  readonly servicePort: number
  readonly members: MemberTable
}

/** New members are collected for this long before they are passed on. */
const collectMillis = 100
/** How many nodes are told of a member that others know already: those tell the rest. */
const fanOut = 4
/** How many nodes are told of a member that connected to this node first. */
const firstWitnessFanOut = 128
const maxHelloPeers = 50
/** Lists of all members that are sent in a second. */
const maxListsPerSecond = 50
/** A node that knows this share of the members that this node knows needs no list. */
const nearlyAll = 0.9

export class Gossip {
  readonly #options: GossipOptions
  #collected: Array<Member> = []
  #lists = { second: 0, sent: 0 }

  constructor(options: GossipOptions) {
    this.#options = options
  }

  /** Greets a member: it compares this node's fingerprint with its own. */
  greet(member: Member): void {
    this.#options.transport.gossip(member, [this.#hello([])])
  }

  /** Passes a new member on, together with others that come within the next moment. */
  spread(member: Member): void {
    this.#collected.push(member)
    if (this.#collected.length === 1) this.#options.after(collectMillis, () => this.#spreadCollected())
  }

  /**
   * All nodes are to hear of a member that connected to this node first, since nobody else announces it. A few are enough
   * for other members, or every node would tell every node of every member.
   */
  #spreadCollected(): void {
    const collected = this.#collected
    this.#collected = []
    const firstSeenHere = collected.filter(({ witness }) => witness === undefined)
    this.#tellSome(firstSeenHere, firstWitnessFanOut)
    this.#tellSome(collected.filter((member) => !firstSeenHere.includes(member)), fanOut)
  }

  #tellSome(members: ReadonlyArray<Member>, count: number): void {
    const hellos = this.#hellos(members)
    // The new members are among the readers: they need to hear of each other.
    const readers = this.#speakers()
    for (let told = 0; told < count && readers.length > 0 && hellos.length > 0; told++) {
      const [reader] = readers.splice(Math.floor(this.#random() * readers.length), 1)
      if (reader !== undefined) this.#options.transport.gossip(reader, hellos)
    }
  }

  /** Takes a hello's facts about its sender, and sends it the list of members if it knows others than this node. */
  receive(sender: Member, { closer, key }: Message): void {
    const view = Buffer.from(key.buffer, key.byteOffset, key.length)
    sender.ours = true
    if (sender.proof === undefined) sender.servicePort = view.readUInt16BE()
    const theirFingerprint = view.readInt32BE(2)
    const theirSize = view.readUInt16BE(6)
    // Never answer a gossip message that names members: two nodes with different views would answer each other for ever.
    if (closer.length > 0 || theirFingerprint === this.#fingerprint) return
    if (theirSize > this.#options.members.size * nearlyAll && this.#random() > this.#listShare()) return
    if (!this.#mayList()) return
    const others = [...this.#options.members.values()].filter((other) => other.lastHeard > 0 && other !== sender)
    if (others.length > 0) this.#options.transport.gossip(sender, this.#hellos(others))
  }

  /** Greets a random member, so that one of the two notices what it missed. */
  compare(): void {
    const speakers = this.#speakers()
    const chosen = speakers[Math.floor(this.#random() * speakers.length)]
    if (chosen !== undefined) this.greet(chosen)
  }

  /** Whether it is this node's turn to compare. In a large network turns are rarer, since a list of all costs more. */
  hasTurn(): boolean {
    return this.#random() <= this.#listShare()
  }

  #listShare(): number {
    return everybodyUpTo / this.#options.members.size
  }

  #mayList(): boolean {
    const second = Math.floor(this.#options.environment.now() / 1000)
    if (second !== this.#lists.second) this.#lists = { second, sent: 0 }
    return this.#lists.sent++ < maxListsPerSecond
  }

  /** The same on two nodes that have heard from each other and from the same others. */
  get #fingerprint(): number {
    return this.#options.members.fingerprint ^ mark(this.#options.position)
  }

  #hello(members: ReadonlyArray<Member>): Message {
    const key = Buffer.alloc(8)
    key.writeUInt16BE(this.#options.servicePort)
    key.writeInt32BE(this.#fingerprint, 2)
    key.writeUInt16BE(this.#options.members.size, 6)
    return message(GossipType.hello, key, members.map(toWire))
  }

  #hellos(members: ReadonlyArray<Member>): ReadonlyArray<Message> {
    const messages: Array<Message> = []
    for (let from = 0; from < members.length; from += maxHelloPeers) {
      messages.push(this.#hello(members.slice(from, from + maxHelloPeers)))
    }
    return messages
  }

  #speakers(): Array<Member> {
    return [...this.#options.members.values()].filter(isSpeaker)
  }

  #random(): number {
    return this.#options.environment.random()
  }
}
