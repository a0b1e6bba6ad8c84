/**
 * Records of who provides what. A key costs a map entry and a flat array of numbers, so that hundreds of thousands fit
 * into a few megabytes; peers are numbers here, since each provides many keys.
 */

/** One peer may fill no more than its share. */
const maxRecordsOfPeer = 100_000
const maxProvidersOfKey = 64
/** What many peers may fill together: 16 MiB. */
const maxRecords = 400_000

export class ProviderStore {
  /** Key to [peer number, time of expiry in seconds, ...]. */
  readonly #records = new Map<string, Array<number>>()
  readonly #numbers = new Map<string, number>()
  readonly #peers: Array<{ id: string; count: number }> = []
  /** Numbers of peers that have no record left. */
  readonly #free: Array<number> = []
  #size = 0
  #sweep: IterableIterator<[string, Array<number>]> | undefined

  /** Records held, expired ones included until they are swept. */
  get size(): number {
    return this.#size
  }

  /** Adds or renews a record; false where the peer has its share. Times are in seconds. */
  add(key: string, peer: string, expiry: number): boolean {
    const number = this.#numberOf(peer)
    const owner = this.#peers[number]
    const records = this.#records.get(key)
    if (owner === undefined) return false
    const full = owner.count >= maxRecordsOfPeer || this.#size >= maxRecords
    if (records === undefined) {
      if (full) return this.#refuse(number)
      this.#records.set(key, [number, expiry])
      owner.count++
      this.#size++
      return true
    }
    for (let index = 0; index < records.length; index += 2) {
      if (records[index] === number) {
        records[index + 1] = expiry
        return true
      }
    }
    if (full) return this.#refuse(number)
    // The oldest makes room.
    if (records.length >= 2 * maxProvidersOfKey) this.#removeAt(key, records, 0)
    records.push(number, expiry)
    owner.count++
    this.#size++
    return true
  }

  /** Peers that provide a key at `now`, in seconds. */
  get(key: string, now: number): ReadonlyArray<string> {
    const records = this.#records.get(key)
    if (records === undefined) return []
    const found: Array<string> = []
    for (let index = 0; index < records.length; index += 2) {
      const peer = this.#peers[records[index] ?? -1]
      if (peer !== undefined && (records[index + 1] ?? 0) > now) found.push(peer.id)
    }
    return found
  }

  remove(key: string, peer: string): void {
    const records = this.#records.get(key)
    const index = records === undefined ? -1 : this.#indexOf(records, peer)
    if (records !== undefined && index >= 0) this.#removeAt(key, records, index)
  }

  /** Forgets all that a peer provides. */
  removePeer(peer: string): void {
    if ((this.#peers[this.#numbers.get(peer) ?? -1]?.count ?? 0) === 0) return
    for (const [key, records] of this.#records) {
      const index = this.#indexOf(records, peer)
      if (index >= 0) this.#removeAt(key, records, index)
    }
  }

  /** Looks at the next `count` keys and drops what has expired: called often, it never holds up a lookup. */
  sweep(now: number, count: number): void {
    for (let looked = 0; looked < count; looked++) {
      this.#sweep ??= this.#records.entries()
      const { done, value } = this.#sweep.next()
      if (done === true) {
        this.#sweep = undefined
        return
      }
      const [key, records] = value
      for (let index = records.length - 2; index >= 0; index -= 2) {
        if ((records[index + 1] ?? 0) <= now) this.#removeAt(key, records, index)
      }
    }
  }

  #numberOf(peer: string): number {
    const known = this.#numbers.get(peer)
    if (known !== undefined) return known
    const number = this.#free.pop() ?? this.#peers.length
    this.#numbers.set(peer, number)
    this.#peers[number] = { id: peer, count: 0 }
    return number
  }

  /** Peers come and go: a number is used again when its last record is gone. */
  #releaseIfUnused(number: number): void {
    const peer = this.#peers[number]
    if (peer === undefined || peer.count > 0) return
    this.#numbers.delete(peer.id)
    this.#free.push(number)
  }

  #refuse(number: number): false {
    this.#releaseIfUnused(number)
    return false
  }

  #indexOf(records: ReadonlyArray<number>, peer: string): number {
    const number = this.#numbers.get(peer)
    for (let index = 0; index < records.length; index += 2) {
      if (records[index] === number) return index
    }
    return -1
  }

  #removeAt(key: string, records: Array<number>, index: number): void {
    const number = records[index] ?? -1
    const owner = this.#peers[number]
    if (owner !== undefined) owner.count--
    this.#size--
    records.splice(index, 2)
    if (records.length === 0) this.#records.delete(key)
    this.#releaseIfUnused(number)
  }
}
