/** The table of who is in the network: everybody, up to a bound, since a lookup then asks the right ones at once. */
import { closest, compare, type Position, positionOf } from "../Distance.ts"
import type { WirePeer } from "../rpc/Message.ts"

/** A peer as it is told of: nothing here is believed before it was heard or vouched for. */
export interface PeerRecord {
  readonly id: string
  readonly idBytes: Uint8Array
  readonly position: Position
  readonly addresses: ReadonlyArray<Uint8Array>
}

/** What is remembered of a peer that a frame told of: copies, since the views would keep whole frames alive. */
export const copied = (id: string, { addresses, id: idBytes }: WirePeer): PeerRecord => ({
  id,
  idBytes: idBytes.slice(),
  position: positionOf(idBytes),
  addresses: addresses.map((address) => address.slice())
})

export interface Member {
  readonly id: string
  readonly idBytes: Uint8Array
  readonly position: Position
  /** Where it counts among the identities of one address. */
  readonly site: string
  /** Multiaddrs in binary, the one to try first in front. */
  addresses: ReadonlyArray<Uint8Array>
  /** Milliseconds on the core's clock; 0 for a member that others told of and that was never heard. */
  lastHeard: number
  /** When it was heard, or told of, for the first time. */
  since: number
  /** Who told of it first, and whether another one has since: one peer's word alone counts for little. */
  voucher: string | undefined
  vouched: boolean
  /** Timeouts in a row. */
  timeouts: number
  /** Did not answer the last request in time. What it sends by itself is no answer. */
  late: boolean
  /** Has closed its connection to spare it, and is there all the same. */
  resting: boolean
  /** Smoothed round trip in milliseconds; none before the first answer. */
  roundTrip: number | undefined
  /** Speaks our own protocol. */
  ours: boolean
  servicePort: number | undefined
  agent: string | undefined
}

interface Evicted {
  readonly member: Member
  readonly since: number
  /** It has said that it stops: what still comes from it is old. */
  readonly left: boolean
  retryAt: number
  backoff: number
}

export const maxMembers = 10_000
/** A peer with many names is one peer: identities that one address may bring in. */
const maxMembersOfSite = 16
const firstBackoff = 5000
const maxBackoff = 60_000
/** Between two tries of a peer that sends something. */
const minPause = 1000
/** The evicted are tried again for this long, so that a healed partition merges by itself. */
const forgetAfter = 3_600_000
const maxEvicted = 1000

/** What a member that was never measured is taken to need, in milliseconds. */
const usualRoundTrip = 50
export const roundTripOf = ({ roundTrip }: Member): number => roundTrip ?? usualRoundTrip

/** Whether a member is of our kind, and there to be told something. */
export const isSpeaker = ({ lastHeard, ours }: Member): boolean => ours && lastHeard > 0

/** A member as others are told of it. */
export const toWire = ({ addresses, idBytes }: Member): WirePeer => ({ id: idBytes, addresses })

/** Whether a member counts: it was heard, or two others told of it. */
export const isKnown = ({ lastHeard, vouched }: Member): boolean => lastHeard > 0 || vouched

export class Members {
  readonly #members = new Map<string, Member>()
  readonly #evicted = new Map<string, Evicted>()
  readonly #sites = new Map<string, number>()
  readonly #siteOf: (addresses: ReadonlyArray<Uint8Array>) => string
  /** Differs between two nodes that have heard different members. */
  fingerprint = 0

  /** `siteOf` names the place of a peer from its addresses, of which each may hold a few only. */
  constructor(siteOf: (addresses: ReadonlyArray<Uint8Array>) => string) {
    this.#siteOf = siteOf
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

  /** A peer that may become a member. */
  candidate(peer: PeerRecord): Member {
    return this.#make(peer)
  }

  /** Whether a member is one of the `count` closest to `target`: ends as soon as so many are closer. */
  isAmongClosest(member: Member, target: Position, count: number): boolean {
    let closer = 0
    for (const other of this.#members.values()) {
      if (isKnown(other) && compare(target, other.position, member.position) < 0 && ++closer >= count) return false
    }
    return true
  }

  /** Adds a peer that was heard, or renews it; none where too many others come from the same place. */
  heard(peer: PeerRecord, now: number): { readonly member: Member; readonly isNew: boolean } | undefined {
    const before = this.#evicted.get(peer.id)?.member
    const known = this.#members.get(peer.id)
    const member = known ?? this.#make(peer, before)
    if (known === undefined && !this.#enter(member)) return undefined
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

  /** Whether a peer that was taken out has its turn to be tried again, which it then has had. */
  takeTurn(id: string, now: number): Member | undefined {
    const evicted = this.#evicted.get(id)
    if (evicted === undefined || evicted.left || evicted.retryAt - evicted.backoff + minPause > now) return undefined
    evicted.retryAt = now + evicted.backoff
    return evicted.member
  }

  /** A peer that was taken out although it had not said that it stops: it may be there after all. */
  evictedAs(id: string): Member | undefined {
    const evicted = this.#evicted.get(id)
    return evicted?.left === true ? undefined : evicted?.member
  }

  /** Those that were taken out after a moment, or said that they stop. */
  evictedSince(moment: number): ReadonlyArray<Member> {
    return [...this.#evicted.values()].flatMap(({ member, since }) => since >= moment ? member : [])
  }

  /** Notes a peer that `voucher` told of; gives it where it is news, or where it counts from now on. */
  told(peer: PeerRecord, voucher: string, now: number): Member | undefined {
    const known = this.#members.get(peer.id)
    if (known !== undefined) {
      if (isKnown(known) || known.voucher === voucher) return undefined
      known.vouched = true
      return known
    }
    const evicted = this.#evicted.get(peer.id)
    if (evicted !== undefined) {
      // Somebody has heard it again: its turn is now, but not more often than the first time.
      evicted.retryAt = Math.min(evicted.retryAt, Math.max(now, evicted.retryAt - evicted.backoff + firstBackoff))
      return undefined
    }
    if (this.#members.size >= maxMembers) return undefined
    const member = this.#make(peer)
    if (!this.#enter(member)) return undefined
    member.voucher = voucher
    member.since = now
    this.#members.set(peer.id, member)
    return member
  }

  /** Takes a peer out; with `retry` it is tried again now and then. `left`: it has said that it stops. */
  evict(id: string, now: number, options: { readonly retry: boolean; readonly left?: boolean }): void {
    const member = this.#members.get(id)
    if (member === undefined) return
    this.#members.delete(id)
    this.#leave(member)
    if (member.lastHeard > 0) this.fingerprint ^= mark(member.position)
    // Nobody can vouch for a peer that was never heard.
    if (options.retry && member.lastHeard > 0) {
      const [oldest] = this.#evicted.keys()
      if (oldest !== undefined && this.#evicted.size >= maxEvicted) this.#evicted.delete(oldest)
      const left = options.left ?? false
      this.#evicted.set(id, { member, since: now, left, retryAt: now + firstBackoff, backoff: firstBackoff })
    }
  }

  /** Drops those that one peer told of before a moment, and that nobody has heard or told of since. */
  forgetRumours(before: number): void {
    for (const member of this.#members.values()) {
      if (!isKnown(member) && member.since < before) {
        this.#members.delete(member.id)
        this.#leave(member)
      }
    }
  }

  /** Up to `count` evicted peers whose turn it is; each call puts their next turn further away. */
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

  #enter({ site }: Member): boolean {
    const there = this.#sites.get(site) ?? 0
    if (there >= maxMembersOfSite) return false
    this.#sites.set(site, there + 1)
    return true
  }

  #leave({ site }: Member): void {
    const left = (this.#sites.get(site) ?? 1) - 1
    if (left === 0) this.#sites.delete(site)
    else this.#sites.set(site, left)
  }

  #make({ addresses, id, idBytes, position }: PeerRecord, before?: Member): Member {
    return {
      id,
      idBytes,
      position,
      site: this.#siteOf(addresses),
      addresses,
      lastHeard: 0,
      since: 0,
      voucher: undefined,
      vouched: false,
      timeouts: 0,
      late: false,
      resting: false,
      roundTrip: undefined,
      ours: before?.ours ?? false,
      servicePort: before?.servicePort,
      agent: before?.agent
    }
  }
}

/** A number that stands for a node in a fingerprint. */
export const mark = (position: Position): number => Buffer.from(position.buffer, position.byteOffset, 4).readInt32BE()
