/**
 * A fixed amount of memory for bodies that are being read, taken as their bytes come: what somebody claims to send takes
 * nothing. Where none is left, whoever has most gives up for one that has less, so that large bodies that crawl do not keep
 * small ones waiting.
 */

/** What one body has. */
export interface Share {
  /** Takes so many bytes more. False: `onTaken` is called once they are taken, unless the share is lost or given back. */
  readonly take: (bytes: number, onTaken: () => void) => boolean
  /** The body is complete: its memory cannot be lost any more. */
  readonly keep: () => void
  /** Gives all of it back. */
  readonly release: () => void
}

interface Taken {
  bytes: number
  /** It cannot be lost, or is lost already. */
  settled: boolean
  readonly onLost: () => void
}

interface Waiting {
  readonly share: Taken
  readonly bytes: number
  readonly onTaken: () => void
}

export class SharedMemory {
  readonly #size: number
  readonly #shares = new Set<Taken>()
  /** Who waits for memory, in order. */
  #waiting: ReadonlyArray<Waiting> = []
  #free: number

  /** `size` in bytes. */
  constructor(size: number) {
    this.#size = size
    this.#free = size
  }

  /** A share without memory. `onLost` is called at most once, where others need its memory; it is to be released then. */
  open(onLost: () => void): Share {
    const share: Taken = { bytes: 0, settled: false, onLost }
    this.#shares.add(share)
    return {
      take: (bytes, onTaken) => this.#take(share, bytes, onTaken),
      keep: () => {
        share.settled = true
      },
      release: () => {
        if (!this.#shares.delete(share)) return
        this.#free += share.bytes
        this.#waiting = this.#waiting.filter((waiting) => waiting.share !== share)
        this.#serve()
      }
    }
  }

  #take(share: Taken, more: number, onTaken: () => void): boolean {
    // A body that is larger than all there is has all there is.
    const bytes = Math.min(more, this.#size - share.bytes)
    if (this.#waiting.length === 0 && bytes <= this.#free) {
      this.#free -= bytes
      share.bytes += bytes
      return true
    }
    const waiting = { share, bytes, onTaken }
    this.#waiting = [...this.#waiting, waiting]
    this.#makeRoom(waiting)
    return false
  }

  /** The largest gives up, unless it has less than what waits would have: that waits for the others to end. */
  #makeRoom({ bytes, share }: Waiting): void {
    const [largest] = [...this.#shares].filter((one) => one !== share && !one.settled)
      .toSorted((one, other) => other.bytes - one.bytes)
    if (largest === undefined || largest.bytes < share.bytes + bytes) return
    largest.settled = true
    largest.onLost()
  }

  #serve(): void {
    while (true) {
      const [first, ...others] = this.#waiting
      if (first === undefined) return
      if (first.bytes > this.#free) return this.#makeRoom(first)
      this.#free -= first.bytes
      first.share.bytes += first.bytes
      this.#waiting = others
      first.onTaken()
    }
  }
}
