/** The peers that sent the bytes of one download, as far as this node relayed them, each at the address that sent. */
import type { Peer } from "@spegel-ts/router/Peer"
import * as PeerAddress from "../mirror/PeerAddress.ts"

/** A pull asks some three peers; a download in parts is many pulls. */
const maxSenders = 100

export class Senders {
  /** By id and address: the same id at another address may be somebody else. */
  readonly #peers = new Map<string, Peer>()
  /** All bytes before this one were sent, without a gap. */
  #reached = 0
  #mixed = false

  /** `peer` sent the bytes `[from, to)`; told again as more are sent. */
  sent(peer: Peer, from: number, to: number): void {
    if (this.#peers.size < maxSenders) this.#peers.set(`${peer.id} ${PeerAddress.of(peer)}`, peer)
    if (from <= this.#reached) this.#reached = Math.max(this.#reached, to)
  }

  /** Several relays ran side by side: we cannot tell which of their bytes the download took. */
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
