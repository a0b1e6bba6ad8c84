/**
 * Remembers which peer ids have proved that they know the cluster key. They are not accepted without a proof, so that whoever
 * has only a node's identity does not take its place, until the node has said goodbye or has been away for an hour, or the key
 * that it proved is no longer in use.
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"

/** As many as a node can have members. Only peers that know the key take a place. */
const maxIds = 10_000
const forgetAfterMillis = 3_600_000

export class ProvedIds {
  readonly #ids = new BoundedMap<string, { readonly keyId: string; readonly at: number }>(maxIds)

  /** An id has proved the key. `now` is in milliseconds on a clock that does not jump. */
  add(id: string, keyId: string, now: number): void {
    this.#ids.set(id, { keyId, at: now })
  }

  /** A connection on which an id had proved the key has ended. */
  ended(id: string, now: number): void {
    const known = this.#ids.get(id)
    if (known !== undefined) this.#ids.set(id, { ...known, at: now })
  }

  /** The node has said goodbye: it may come back without the key. */
  forget(id: string): void {
    this.#ids.delete(id)
  }

  /** Whether the id has to prove the key. `connected`: it has another connection on which it did. */
  has(id: string, ring: KeyRing, now: number, connected: boolean): boolean {
    const known = this.#ids.get(id)
    if (known === undefined || ring.find("router", known.keyId) === undefined) return false
    return connected || now - known.at < forgetAfterMillis
  }
}
