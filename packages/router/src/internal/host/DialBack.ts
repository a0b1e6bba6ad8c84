/**
 * Finds out whether a peer that has proved nothing is where it claims to be, if it connects from somewhere else: behind address
 * translation, or from another of its addresses. A new connection to a claimed address proves its id there.
 */
import type { Libp2p as Host } from "@libp2p/interface"
import type { Multiaddr } from "@multiformats/multiaddr"

/** At once; further peers have to wait until they connect again. */
const maxDials = 16
const timeoutMillis = 5000

export class DialBack {
  readonly #host: Host
  readonly #dialled = new Set<string>()

  constructor(host: Host) {
    this.#host = host
  }

  /** Connects to a peer at one of the addresses that it claims. The host tells of the new connection as of any other. */
  dial(id: string, claimed: ReadonlyArray<Multiaddr>): void {
    if (claimed.length === 0 || this.#dialled.has(id) || this.#dialled.size >= maxDials) return
    this.#dialled.add(id)
    const addresses = claimed.map((address) => address.encapsulate(`/p2p/${id}`))
    this.#host.dial(addresses, { force: true, signal: AbortSignal.timeout(timeoutMillis) }).then(
      () => this.#dialled.delete(id),
      () => this.#dialled.delete(id)
    )
  }
}
