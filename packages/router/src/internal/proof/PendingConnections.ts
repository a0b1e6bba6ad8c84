/**
 * Bounds the inbound connections that have not proved anything yet. When there are too many, the oldest one goes: a proof takes
 * milliseconds, so that an old one is hardly an honest node's.
 */

/** Of one address. */
const maxOfAddress = 64
/** Of all addresses: half of the connections that the host accepts. */
const maxAll = 128

export class PendingConnections<Entry extends { readonly address: string }> {
  readonly #entries = new Set<Entry>()
  readonly #drop: (entry: Entry) => void

  /** `drop` is called with an entry that has to go. */
  constructor(drop: (entry: Entry) => void) {
    this.#drop = drop
  }

  add(entry: Entry): void {
    this.#entries.add(entry)
    const others = [...this.#entries].filter(({ address }) => address === entry.address)
    const [oldestOfAddress] = others
    const [oldest] = this.#entries
    if (others.length > maxOfAddress && oldestOfAddress !== undefined) this.#remove(oldestOfAddress)
    else if (this.#entries.size > maxAll && oldest !== undefined) this.#remove(oldest)
  }

  /** The connection has proved something, or is gone. */
  delete(entry: Entry): void {
    this.#entries.delete(entry)
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry)
    this.#drop(entry)
  }
}
