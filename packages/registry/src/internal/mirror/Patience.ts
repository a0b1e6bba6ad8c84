/**
 * How long requests wait for peers that kept others waiting before. Such a peer is asked only where no better one is left,
 * and may be well again; where it is not, each request would lose the time anew. So the time lost is a budget for all
 * requests together, which refills slowly: in the long run a pull is at most a twentieth slower than upstream alone.
 */

/** A peer that is well again answers in less, even one that has just been started. */
export const maxPatienceMillis = 250
/** In less, no peer can be expected to answer. */
const minPatienceMillis = 20
/** Part of the time that may be lost. */
const share = 0.05

export class Patience {
  #millis = maxPatienceMillis
  #at = 0

  /** Milliseconds that a request may wait now; 0 where it is not worth asking. */
  left(now: number): number {
    this.#refill(now)
    return this.#millis < minPatienceMillis ? 0 : Math.floor(this.#millis)
  }

  /** A request has waited in vain. */
  spend(millis: number, now: number): void {
    this.#refill(now)
    this.#millis -= millis
  }

  #refill(now: number): void {
    this.#millis = Math.min(maxPatienceMillis, this.#millis + (now - this.#at) * share)
    this.#at = now
  }
}
