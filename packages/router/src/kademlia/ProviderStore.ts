/**
 * Records of who provides what. A record is three numbers in flat arrays, in a chain of its key's records, so that hundreds
 * of thousands fit into a few megabytes; peers are numbers here, since each provides many keys.
 */
import { grown, KeyTable } from "./KeyTable.ts"

/** One peer may fill no more than its share. */
const maxRecordsOfPeer = 100_000
const maxProvidersOfKey = 64
/** What many peers may fill together: 16 MiB. */
const maxRecords = 400_000
const initialRecords = 1024
const none = -1

export class ProviderStore {
  readonly #keys = new KeyTable()
  /** The first record of each key number. */
  #heads = new Int32Array(initialRecords).fill(none)
  /** Of each record: its peer, when it expires in seconds, and the next one of the same key. */
  #recordPeers = new Int32Array(initialRecords)
  #expiries = new Uint32Array(initialRecords)
  #nexts = new Int32Array(initialRecords)
  readonly #freeRecords: Array<number> = []
  #usedRecords = 0
  readonly #numbers = new Map<string, number>()
  readonly #peers: Array<{ id: string; count: number }> = []
  /** Numbers of peers that have no record left. */
  readonly #freePeers: Array<number> = []
  #size = 0
  #swept = 0

  /** Records held, expired ones included until they are swept. */
  get size(): number {
    return this.#size
  }

  /** Adds or renews a record; false where the peer, or all of them, have their share. Times are in seconds. */
  add(key: Uint8Array, peer: string, expiry: number): boolean {
    const known = this.#keys.find(key)
    const peerNumber = this.#numbers.get(peer) ?? none
    const chain = this.#chain(known)
    const existing = chain.find((record) => this.#recordPeers[record] === peerNumber)
    if (existing !== undefined) {
      this.#expiries[existing] = expiry
      return true
    }
    if ((this.#peers[peerNumber]?.count ?? 0) >= maxRecordsOfPeer || this.#size >= maxRecords) return false
    // The oldest makes room.
    const oldest = chain[0]
    if (oldest !== undefined && chain.length >= maxProvidersOfKey) this.#remove(known, oldest)
    this.#append(known === none ? this.#keys.add(key) : known, chain.at(-1), this.#numberOf(peer), expiry)
    return true
  }

  /** Peers that provide a key at `now`, in seconds. */
  get(key: Uint8Array, now: number): ReadonlyArray<string> {
    return this.#chain(this.#keys.find(key)).flatMap((record) =>
      (this.#expiries[record] ?? 0) > now ? this.#peers[this.#recordPeers[record] ?? none]?.id ?? [] : []
    )
  }

  remove(key: Uint8Array, peer: string): void {
    const number = this.#numbers.get(peer)
    if (number !== undefined) this.#removeOf(this.#keys.find(key), (record) => this.#recordPeers[record] === number)
  }

  /** Forgets all that a peer provides. */
  removePeer(peer: string): void {
    const number = this.#numbers.get(peer)
    if (number === undefined) return
    for (let key = 0; key < this.#keys.limit; key++) {
      this.#removeOf(key, (record) => this.#recordPeers[record] === number)
    }
  }

  /** Looks at the next `count` keys and drops what has expired: called often, it never holds up a lookup. */
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
    for (const record of this.#chain(key)) if (gone(record)) this.#remove(key, record)
  }

  /** Adds a record behind `last`, the newest of its key. */
  #append(key: number, last: number | undefined, peer: number, expiry: number): void {
    const record = this.#freeRecords.pop() ?? this.#usedRecords++
    if (record >= this.#nexts.length) {
      this.#recordPeers = grown(this.#recordPeers, 2 * record)
      this.#expiries = grown(this.#expiries, 2 * record)
      this.#nexts = grown(this.#nexts, 2 * record)
    }
    if (key >= this.#heads.length) {
      const before = this.#heads.length
      this.#heads = grown(this.#heads, 2 * key).fill(none, before)
    }
    this.#recordPeers[record] = peer
    this.#expiries[record] = expiry
    this.#nexts[record] = none
    if (last === undefined) this.#heads[key] = record
    else this.#nexts[last] = record
    this.#size++
    const owner = this.#peers[peer]
    if (owner !== undefined) owner.count++
  }

  #remove(key: number, record: number): void {
    const next = this.#nexts[record] ?? none
    const before = this.#chain(key).find((other) => this.#nexts[other] === record)
    if (before === undefined) this.#heads[key] = next
    else this.#nexts[before] = next
    if (this.#heads[key] === none) this.#keys.remove(key)
    this.#freeRecords.push(record)
    this.#size--
    this.#releaseOwner(this.#recordPeers[record] ?? none)
  }

  #numberOf(peer: string): number {
    const known = this.#numbers.get(peer)
    if (known !== undefined) return known
    const number = this.#freePeers.pop() ?? this.#peers.length
    this.#numbers.set(peer, number)
    this.#peers[number] = { id: peer, count: 0 }
    return number
  }

  /** Peers come and go: a number is used again when its last record is gone. */
  #releaseOwner(number: number): void {
    const owner = this.#peers[number]
    if (owner === undefined || --owner.count > 0) return
    this.#numbers.delete(owner.id)
    this.#freePeers.push(number)
  }
}
