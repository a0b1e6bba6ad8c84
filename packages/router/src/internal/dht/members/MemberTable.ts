/** The table of all members of the network, up to a bound: a lookup finds the right ones to ask in its first round. */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import { Tally } from "@spegel-ts/background/Tally"
import { closest, compare, type Position, positionOf } from "../Distance.ts"
import type { WirePeer } from "../rpc/Message.ts"

/** A peer as a message named it. It does not count before this node heard from it, or a second peer named it too. */
export interface PeerRecord {
  readonly id: string
  readonly idBytes: Uint8Array
  readonly position: Position
  readonly addresses: ReadonlyArray<Uint8Array>
}

/** The record of a peer that a frame named. It holds copies, since views would keep whole frames in memory. */
export const copied = (id: string, { addresses, id: idBytes }: WirePeer): PeerRecord => ({
  id,
  idBytes: idBytes.slice(),
  position: positionOf(idBytes),
  addresses: addresses.map((address) => address.slice())
})

/** What a peer has proved with the cluster key. */
export interface ProvedFacts {
  /** The key. */
  readonly keyId: string
  readonly servicePort: number
  readonly zone: string | undefined
}

/** A peer that this node has heard from. */
export interface HeardPeer extends PeerRecord {
  /** The members that it is counted with, of which there may be a few only. Default: those with its first address. */
  readonly group?: string
}

export interface Member {
  readonly id: string
  readonly idBytes: Uint8Array
  readonly position: Position
  /** The members with the same address, of which there may be a few only. */
  group: string
  /** Multiaddrs in binary, in the order in which to try them. */
  addresses: ReadonlyArray<Uint8Array>
  /** When this node last heard from it, in milliseconds on the core's clock; 0 if never. */
  lastHeard: number
  /** When this node heard from it, or another named it, for the first time. */
  since: number
  /** The peer that named it first, and whether another one has since: one peer's word alone does not count. */
  witness: string | undefined
  corroborated: boolean
  /** Timeouts in a row. */
  timeouts: number
  /** Did not answer the last request in time. A message that it sends unasked does not clear this. */
  late: boolean
  /** Has closed the connection because it was unused, and is still a member. */
  resting: boolean
  /** Smoothed round trip in milliseconds; undefined before the first answer. */
  roundTrip: number | undefined
  /** Speaks our gossip protocol. */
  ours: boolean
  servicePort: number | undefined
  agent: string | undefined
  /** Its proof, whose addresses are those above; undefined if it has proved nothing. */
  proof: ProvedFacts | undefined
}

interface Evicted {
  readonly member: Member
  readonly since: number
  /** It has said goodbye: what still arrives from it was sent before. */
  readonly left: boolean
  retryAt: number
  backoff: number
}

const maxMembers = 10_000
/** Members that one address may have, so that one machine cannot fill the table with ids. */
const maxMembersOfGroup = 16
const firstBackoff = 5000
const maxBackoff = 60_000
/** Between two attempts to reach an evicted peer that sends something. */
const minPause = 1000
/** Evicted peers are retried for this long, so that the two sides of a healed partition find each other. */
const forgetAfter = 3_600_000
const maxEvicted = 1000

/** The round trip assumed for a member that was never measured, in milliseconds. */
const usualRoundTrip = 50
export const roundTripOf = ({ roundTrip }: Member): number => roundTrip ?? usualRoundTrip

/** Whether a member speaks our gossip protocol, and was heard from. */
export const isSpeaker = ({ lastHeard, ours }: Member): boolean => ours && lastHeard > 0

/** A member as messages name it. */
export const toWire = ({ addresses, idBytes }: Member): WirePeer => ({ id: idBytes, addresses })

/** Whether a member counts: this node heard from it, or two others named it. */
export const isKnown = ({ lastHeard, corroborated }: Member): boolean => lastHeard > 0 || corroborated

export class MemberTable {
  readonly #members = new Map<string, Member>()
  readonly #evicted = new BoundedMap<string, Evicted>(maxEvicted)
  readonly #groups = new Tally<string>()
  readonly #groupOf: (addresses: ReadonlyArray<Uint8Array>) => string
  /** Differs between two nodes that have heard from different members. */
  fingerprint = 0

  /** `groupOf` gives the group of a peer from its addresses. */
  constructor(groupOf: (addresses: ReadonlyArray<Uint8Array>) => string) {
    this.#groupOf = groupOf
  }

  get size(): number {
    return this.#members.size
  }

  get(id: string): Member | undefined {
    return this.#members.get(id)
  }

  values(): IterableIterator<Member> {
    return this.#members.values()
  }

  /** The members that count and lie closest to `target`. */
  closest(target: Position, count: number): Array<Member> {
    return closest(target, this.#members.values(), count, isKnown)
  }

  /** A record as a member that is not in the table: it may be sent requests. */
  candidate(peer: PeerRecord): Member {
    return this.#make(peer)
  }

  /** Whether a member is one of the `count` closest to `target`: stops as soon as `count` others are closer. */
  isAmongClosest(member: Member, target: Position, count: number): boolean {
    let closer = 0
    for (const other of this.#members.values()) {
      if (isKnown(other) && compare(target, other.position, member.position) < 0 && ++closer >= count) return false
    }
    return true
  }

  /** Adds or renews a peer that was heard from; undefined if its group is full. */
  heard(peer: HeardPeer, now: number): { readonly member: Member; readonly isNew: boolean } | undefined {
    const before = this.#evicted.get(peer.id)?.member
    const known = this.#members.get(peer.id)
    const member = known ?? this.#make(peer, before)
    if (known === undefined ? !this.#enterHeard(member) : !this.#regroup(member, peer.group)) return undefined
    this.#evicted.delete(peer.id)
    const isNew = member.lastHeard === 0
    if (isNew) {
      member.since = now
      this.fingerprint ^= mark(member.position)
    }
    if (peer.addresses.length > 0) member.addresses = peer.addresses
    member.lastHeard = now
    this.#members.set(peer.id, member)
    return { member, isNew }
  }

  /**
   * A peer has just proved these facts: they count for a member, or one that was evicted, from now on. False if its group is
   * full.
   */
  proved(peer: HeardPeer, proof: ProvedFacts): boolean {
    const member = this.#members.get(peer.id)
    if (member !== undefined && !this.#regroup(member, peer.group ?? this.#groupOf(peer.addresses))) return false
    const known = member ?? this.#evicted.get(peer.id)?.member
    if (known === undefined) return true
    known.addresses = peer.addresses
    known.proof = proof
    known.servicePort = proof.servicePort
    return true
  }

  /** An evicted peer if it is time to retry it, which postpones its next retry; undefined otherwise. */
  takeTurn(id: string, now: number): Member | undefined {
    const evicted = this.#evicted.get(id)
    if (evicted === undefined || evicted.left || evicted.retryAt - evicted.backoff + minPause > now) return undefined
    evicted.retryAt = now + evicted.backoff
    return evicted.member
  }

  /** A peer that was evicted without having said goodbye: it may still be there. */
  evicted(id: string): Member | undefined {
    const evicted = this.#evicted.get(id)
    return evicted?.left === true ? undefined : evicted?.member
  }

  /** Members that left since a moment, with or without a goodbye. */
  evictedSince(moment: number): ReadonlyArray<Member> {
    return [...this.#evicted.values()].flatMap(({ member, since }) => since >= moment ? member : [])
  }

  /** Records that `witness` named a peer; returns it if it is new, or if it counts from now on. */
  learn(peer: PeerRecord, witness: string, now: number): Member | undefined {
    const known = this.#members.get(peer.id)
    if (known !== undefined) {
      if (isKnown(known) || known.witness === witness) return undefined
      known.corroborated = true
      return known
    }
    const evicted = this.#evicted.get(peer.id)
    if (evicted !== undefined) {
      // Somebody has heard from it again: retry it now, but not more often than after the first eviction.
      evicted.retryAt = Math.min(evicted.retryAt, Math.max(now, evicted.retryAt - evicted.backoff + firstBackoff))
      return undefined
    }
    if (this.#members.size >= maxMembers) return undefined
    const member = this.#make(peer)
    if (!this.#enter(member)) return undefined
    member.witness = witness
    member.since = now
    this.#members.set(peer.id, member)
    return member
  }

  /** Takes a member out. With `retry` it is retried later. `left` means that it said goodbye. */
  evict(id: string, now: number, options: { readonly retry: boolean; readonly left?: boolean }): void {
    const member = this.#members.get(id)
    if (member === undefined) return
    this.#members.delete(id)
    this.#groups.add(member.group, -1)
    if (member.lastHeard > 0) this.fingerprint ^= mark(member.position)
    // A peer that this node never heard from may not exist.
    if (options.retry && member.lastHeard > 0) {
      const left = options.left ?? false
      this.#evicted.set(id, { member, since: now, left, retryAt: now + firstBackoff, backoff: firstBackoff })
    }
  }

  /** Drops peers that only one witness named, before a moment. */
  forgetRumours(before: number): void {
    for (const member of this.#members.values()) {
      if (!isKnown(member) && member.since < before) {
        this.#members.delete(member.id)
        this.#groups.add(member.group, -1)
      }
    }
  }

  /** Up to `count` evicted peers that are due for a retry; each call doubles the pause before their next one. */
  dueForRetry(now: number, count: number): Array<Member> {
    const due: Array<Member> = []
    for (const [id, evicted] of this.#evicted) {
      if (now - evicted.since > forgetAfter) this.#evicted.delete(id)
      else if (evicted.retryAt <= now && due.length < count) {
        evicted.backoff = Math.min(2 * evicted.backoff, maxBackoff)
        evicted.retryAt = now + evicted.backoff
        due.push(evicted.member)
      }
    }
    return due
  }

  /** Counts a member with another group; false if that is full. */
  #regroup(member: Member, group = member.group): boolean {
    if (group === member.group) return true
    if (!this.#enterHeard({ group })) return false
    this.#groups.add(member.group, -1)
    member.group = group
    return true
  }

  /** Peers that this node has heard from come before those that others only say exist, at addresses that they choose. */
  #enterHeard({ group }: Pick<Member, "group">): boolean {
    if (this.#enter({ group })) return true
    const rumour = [...this.#members.values()].find((member) => member.group === group && member.lastHeard === 0)
    if (rumour === undefined) return false
    this.#members.delete(rumour.id)
    return true
  }

  #enter({ group }: Pick<Member, "group">): boolean {
    if (this.#groups.of(group) >= maxMembersOfGroup) return false
    this.#groups.add(group, 1)
    return true
  }

  #make({ addresses, group, id, idBytes, position }: HeardPeer, before?: Member): Member {
    return {
      id,
      idBytes,
      position,
      group: group ?? this.#groupOf(addresses),
      addresses,
      lastHeard: 0,
      since: 0,
      witness: undefined,
      corroborated: false,
      timeouts: 0,
      late: false,
      resting: false,
      roundTrip: undefined,
      ours: before?.ours ?? false,
      servicePort: before?.servicePort,
      agent: before?.agent,
      proof: before?.proof
    }
  }
}

/** The number that stands for a node in a fingerprint. */
export const mark = (position: Position): number => Buffer.from(position.buffer, position.byteOffset, 4).readInt32BE()
