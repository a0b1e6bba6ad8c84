/** What this node has learnt of its peers in order to sign requests to them: how far their clocks are ahead, and which key they have. */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { KeyRing, PurposeKey } from "@spegel-ts/cluster-key/KeyRing"
import { Effect } from "effect"

const maxPeers = 10_000
/** A peer that lacked the newest key may have read its file again by then. */
const keepKeyMillis = 60_000

/** All peers are named by their ids. */
export class ProofMemory {
  /** In milliseconds. */
  readonly #ahead = new BoundedMap<string, number>(maxPeers)
  /** The peers that use another key than the current one; `until` is a time as `MonotonicTime.millis` has it. */
  readonly #keys = new BoundedMap<string, { readonly id: string; readonly until: number }>(maxPeers)

  /** By how many milliseconds a peer's clock is ahead of this node's; 0 if they agree as far as is known. */
  ahead(peer: string): number {
    return this.#ahead.get(peer) ?? 0
  }

  /** A peer has proved that its clock is this many milliseconds ahead. */
  clockIsAhead(peer: string, millis: number): void {
    this.#ahead.set(peer, millis)
  }

  /** The key to sign a request with: the current one, unless the peer used another one within the last minute. */
  keyFor(peer: string, ring: KeyRing): Effect.Effect<PurposeKey> {
    return Effect.map(MonotonicTime.millis, (now) => {
      const known = this.#keys.get(peer)
      return known === undefined || known.until <= now
        ? ring.current("registry")
        : ring.find("registry", known.id) ?? ring.current("registry")
    })
  }

  /** A peer has accepted a key, and proved it. */
  keyAccepted(peer: string, { id }: PurposeKey, ring: KeyRing): Effect.Effect<void> {
    return Effect.map(MonotonicTime.millis, (now) => {
      if (id === ring.current("registry").id) this.#keys.delete(peer)
      else if ((this.#keys.get(peer)?.until ?? 0) <= now) this.#keys.set(peer, { id, until: now + keepKeyMillis })
    })
  }
}
