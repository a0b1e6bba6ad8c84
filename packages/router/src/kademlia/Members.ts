/**
 * Who is in the network. Up to some hundreds of nodes everybody knows everybody, so that a lookup asks the right nodes in
 * its first round. Nobody is passed on to others who was not heard.
 */
import { closest, type Position, positionOf } from "./Distance.ts"

export interface Member {
  readonly id: string
  readonly idBytes: Uint8Array
  readonly position: Position
  /** Multiaddrs in binary, the one to try first in front. */
  addresses: ReadonlyArray<Uint8Array>
  /** Milliseconds since the epoch; 0 for a member that others told of and that was never heard. */
  lastHeard: number
  /** Timeouts in a row. */
  timeouts: number
  /** Smoothed round trip in milliseconds. */
  roundTrip: number
  /** Speaks our own protocol. */
  ours: boolean
  registryPort: number | undefined
  agent: string | undefined
}

interface Evicted {
  readonly member: Member
  readonly since: number
  retryAt: number
  backoff: number
}

export const maxMembers = 5000
const firstBackoff = 5000
const maxBackoff = 60_000
/** The evicted are tried again for this long, so that a healed partition merges by itself. */
const forgetAfter = 3_600_000
const maxEvicted = 1000

const initialRoundTrip = 50

export class Members {
  readonly #members = new Map<string, Member>()
  readonly #evicted = new Map<string, Evicted>()

  get size(): number {
    return this.#members.size
  }

  get(id: string): Member | undefined {
    return this.#members.get(id)
  }

  values(): IterableIterator<Member> {
    return this.#members.values()
  }

  closest(target: Position, count: number): Array<Member> {
    return closest(target, this.#members.values(), count)
  }

  /** Adds a peer that was heard, or renews it; true where it was not a member before. */
  heard(
    peer: { readonly id: string; readonly idBytes: Uint8Array; readonly addresses: ReadonlyArray<Uint8Array> },
    now: number
  ): { readonly member: Member; readonly isNew: boolean } {
    this.#evicted.delete(peer.id)
    const known = this.#members.get(peer.id)
    const member = known ?? this.#make(peer)
    const isNew = member.lastHeard === 0
    if (peer.addresses.length > 0) member.addresses = peer.addresses
    member.lastHeard = now
    member.timeouts = 0
    this.#members.set(peer.id, member)
    return { member, isNew }
  }

  /** Notes a peer that another told of; true where it is news. */
  told(
    peer: { readonly id: string; readonly idBytes: Uint8Array; readonly addresses: ReadonlyArray<Uint8Array> }
  ): boolean {
    if (this.#members.has(peer.id) || this.#evicted.has(peer.id) || this.#members.size >= maxMembers) return false
    this.#members.set(peer.id, this.#make(peer))
    return true
  }

  /** Takes a peer out; it is tried again now and then unless it has said goodbye. */
  evict(id: string, now: number, options: { readonly retry: boolean }): Member | undefined {
    const member = this.#members.get(id)
    if (member === undefined) return undefined
    this.#members.delete(id)
    // Nobody can vouch for a peer that was never heard.
    if (options.retry && member.lastHeard > 0 && this.#evicted.size < maxEvicted) {
      this.#evicted.set(id, { member, since: now, retryAt: now + firstBackoff, backoff: firstBackoff })
    }
    return member
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

  #make({ addresses, id, idBytes }: Pick<Member, "addresses" | "id" | "idBytes">): Member {
    return {
      id,
      idBytes,
      position: positionOf(idBytes),
      addresses,
      lastHeard: 0,
      timeouts: 0,
      roundTrip: initialRoundTrip,
      ours: false,
      registryPort: undefined,
      agent: undefined
    }
  }
}
