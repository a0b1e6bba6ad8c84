/**
 * Records of which peer provides which key. A record is four numbers in flat arrays, linked into a chain for each key, so
 * that hundreds of thousands fit into a few megabytes. Peers are numbered, since each provides many keys.
 *
 * When the store is full, a new record replaces one from the address with the most records. A peer may have any number of
 * ids, but its address is where its connection comes from. Where address translation gives all peers one address, it
 * replaces one of the peer with the most.
 */
import { grown, KeyTable } from "./KeyTable.ts"

/** The share of one peer. */
const maxRecordsOfPeer = 100_000
const maxProvidersOfKey = 64
/** The bound of all peers together: 24 MiB. */
const maxRecords = 400_000
const initialRecords = 1024
/**
 * How many random records are sampled for the one to replace. An address that holds a quarter of all records is missed
 * once in ten thousand times; a record of another large holder is replaced then.
 */
const looks = 32
const none = -1

/** An address that records came from. */
interface Origin {
  readonly address: string
  count: number
}

interface Owner {
  readonly id: string
  /** Its address when its first record came. */
  readonly origin: Origin
  count: number
}

const hasMore = (one: Owner, other: Owner): boolean =>
  (one.origin.count - other.origin.count || one.count - other.count) > 0

export class ProviderStore {
  readonly #keys = new KeyTable()
  /** The first record of each key number. */
  #heads = new Int32Array(initialRecords).fill(none)
  /** For each record: its peer, its expiry in seconds, and the next record of the same key. */
  #recordPeers = new Int32Array(initialRecords)
  #expiries = new Uint32Array(initialRecords)
  #nexts = new Int32Array(initialRecords)
  /** The key number of each record; `none` if the record is free. */
  #recordKeys = new Int32Array(initialRecords).fill(none)
  readonly #freeRecords: Array<number> = []
  #usedRecords = 0
  readonly #numbers = new Map<string, number>()
  readonly #peers: Array<Owner> = []
  /** Numbers of peers without records, for other peers. */
  readonly #freePeers: Array<number> = []
  readonly #origins = new Map<string, Origin>()
  readonly #random: () => number
  #size = 0
  #swept = 0

  /** `random` returns numbers from 0 to 1. */
  constructor(random: () => number) {
    this.#random = random
  }

  /** How many records are held, including expired ones that were not swept yet. */
  get size(): number {
    return this.#size
  }

  /**
   * Adds or renews a record of a peer that is connected from `address`; false if the peer's share is used up. `expiry` is
   * in seconds.
   */
  add(key: Uint8Array, peer: string, address: string, expiry: number): boolean {
    const known = this.#keys.find(key)
    const peerNumber = this.#numbers.get(peer) ?? none
    const chain = this.#chain(known)
    const existing = chain.find((record) => this.#recordPeers[record] === peerNumber)
    if (existing !== undefined) {
      this.#expiries[existing] = expiry
      return true
    }
    if ((this.#peers[peerNumber]?.count ?? 0) >= maxRecordsOfPeer) return false
    if (chain.length >= maxProvidersOfKey) this.#remove(this.#mostlyFromOneAddress(chain))
    else if (this.#size >= maxRecords) this.#makeRoom()
    this.#append(this.#keys.add(key), this.#numberOf(peer, address), expiry)
    return true
  }

  /** The peers that provide a key at `now`, in seconds. */
  get(key: Uint8Array, now: number): ReadonlyArray<string> {
    return this.#chain(this.#keys.find(key)).flatMap((record) =>
      (this.#expiries[record] ?? 0) > now ? this.#peers[this.#recordPeers[record] ?? none]?.id ?? [] : []
    )
  }

  /** Removes the record of one peer for a key. */
  remove(key: Uint8Array, peer: string): void {
    const number = this.#numbers.get(peer)
    if (number !== undefined) this.#removeOf(this.#keys.find(key), (record) => this.#recordPeers[record] === number)
  }

  /** Removes all records of a peer. */
  removePeer(peer: string): void {
    const number = this.#numbers.get(peer)
    if (number === undefined) return
    let left = this.#peers[number]?.count ?? 0
    for (let record = 0; left > 0; record++) {
      if (this.#recordPeers[record] !== number || this.#recordKeys[record] === none) continue
      this.#remove(record)
      left--
    }
  }

  /** Removes a record of the address with the most among those sampled, and of the peer with the most there. */
  #makeRoom(): void {
    let chosen = none
    let largest: Owner | undefined
    for (let look = 0; look < looks || chosen === none; look++) {
      const record = Math.floor(this.#random() * this.#usedRecords)
      const owner = this.#recordKeys[record] === none ? undefined : this.#ownerOf(record)
      if (owner === undefined || (largest !== undefined && !hasMore(owner, largest))) continue
      chosen = record
      largest = owner
    }
    this.#remove(chosen)
  }

  #ownerOf(record: number): Owner | undefined {
    return this.#peers[this.#recordPeers[record] ?? none]
  }

  /** The oldest of a key's records from the address with the most of them. */
  #mostlyFromOneAddress(chain: ReadonlyArray<number>): number {
    const groups = [...Map.groupBy(chain, (record) => this.#ownerOf(record)?.origin).values()]
    const largest = groups.reduce((one, other) => other.length > one.length ? other : one)
    return largest[0] ?? none
  }

  /** Drops expired records of the next `count` keys. The steps are small, so it never delays a lookup. */
  sweep(now: number, count: number): void {
    const end = Math.min(this.#swept + count, this.#keys.limit)
    for (let key = this.#swept; key < end; key++) this.#removeOf(key, (record) => (this.#expiries[record] ?? 0) <= now)
    this.#swept = end === this.#keys.limit ? 0 : end
  }

  /** The records of a key number, the oldest first. */
  #chain(key: number): Array<number> {
    const records: Array<number> = []
    for (let record = this.#heads[key] ?? none; record !== none; record = this.#nexts[record] ?? none) {
      records.push(record)
    }
    return records
  }

  #removeOf(key: number, gone: (record: number) => boolean): void {
    if ((this.#heads[key] ?? none) === none) return
    for (const record of this.#chain(key)) if (gone(record)) this.#remove(record)
  }

  /** Appends a record to the chain of its key. */
  #append(key: number, peer: number, expiry: number): void {
    const record = this.#freeRecords.pop() ?? this.#usedRecords++
    if (record >= this.#nexts.length) {
      this.#recordPeers = grown(this.#recordPeers, 2 * record)
      this.#expiries = grown(this.#expiries, 2 * record)
      this.#nexts = grown(this.#nexts, 2 * record)
      this.#recordKeys = grown(this.#recordKeys, 2 * record).fill(none, record)
    }
    if (key >= this.#heads.length) {
      const before = this.#heads.length
      this.#heads = grown(this.#heads, 2 * key).fill(none, before)
    }
    const last = this.#chain(key).at(-1)
    this.#recordPeers[record] = peer
    this.#expiries[record] = expiry
    this.#nexts[record] = none
    this.#recordKeys[record] = key
    if (last === undefined) this.#heads[key] = record
    else this.#nexts[last] = record
    this.#count(peer, 1)
  }

  #remove(record: number): void {
    const key = this.#recordKeys[record] ?? none
    const next = this.#nexts[record] ?? none
    const before = this.#chain(key).find((other) => this.#nexts[other] === record)
    if (before === undefined) this.#heads[key] = next
    else this.#nexts[before] = next
    if (this.#heads[key] === none) this.#keys.remove(key)
    this.#recordKeys[record] = none
    this.#freeRecords.push(record)
    this.#count(this.#recordPeers[record] ?? none, -1)
  }

  /** Counts a peer's record, added or removed. The peer's number is freed with its last record. */
  #count(peer: number, change: 1 | -1): void {
    const owner = this.#peers[peer]
    if (owner === undefined) return
    this.#size += change
    owner.count += change
    owner.origin.count += change
    if (owner.origin.count === 0) this.#origins.delete(owner.origin.address)
    if (owner.count > 0) return
    this.#numbers.delete(owner.id)
    this.#freePeers.push(peer)
  }

  #numberOf(peer: string, address: string): number {
    const known = this.#numbers.get(peer)
    if (known !== undefined) return known
    const number = this.#freePeers.pop() ?? this.#peers.length
    this.#numbers.set(peer, number)
    const origin = this.#origins.get(address) ?? { address, count: 0 }
    this.#origins.set(address, origin)
    this.#peers[number] = { id: peer, origin, count: 0 }
    return number
  }
}
