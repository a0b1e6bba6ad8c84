/** Who sent the bytes of one download, as far as this node relayed them. */
import type { Peer } from "@spegel-ts/router/Peer"

/** A download asks three peers or so; one in parts may ask many. */
const maxSenders = 100

export class Senders {
  readonly #peers = new Map<string, Peer>()
  /** Up to here, from the first byte, what was sent leaves no gap. */
  #reached = 0
  #mixed = false

  /** `peer` sent the bytes `[from, to)`; told again as more are sent. */
  sent(peer: Peer, from: number, to: number): void {
    if (this.#peers.size < maxSenders) this.#peers.set(peer.id, peer)
    if (from <= this.#reached) this.#reached = Math.max(this.#reached, to)
  }

  /** Several relays ran side by side: which of their bytes the download took is not known. */
  mix(): void {
    this.#mixed = true
  }

  get all(): ReadonlyArray<Peer> {
    return [...this.#peers.values()]
  }

  /** The one peer that sent all of a download of `size` bytes, if one did. When several did, we cannot tell who lied. */
  only(size: number): Peer | undefined {
    const [peer, ...more] = this.#peers.values()
    return more.length === 0 && !this.#mixed && this.#reached >= size ? peer : undefined
  }
}
