/**
 * A fixed amount of memory for bodies that are being read. It is taken as their bytes come: an announced length reserves
 * nothing. If no memory is left, the body that has most gives up for one that has less, so that large bodies that crawl do not
 * keep small ones waiting.
 */

/** The memory of one body. */
export interface Share {
  /**
   * Takes this many more bytes. True: they are taken now. False: `onTaken` is called once they are, unless the share is lost or
   * released before.
   */
  readonly take: (bytes: number, onTaken: () => void) => boolean
  /** The body is complete: its memory cannot be lost any more. */
  readonly keep: () => void
  /** Returns all of its memory. */
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
  /** Bodies that wait for memory, in order. */
  #waiting: ReadonlyArray<Waiting> = []
  #free: number

  /** `size` in bytes. */
  constructor(size: number) {
    this.#size = size
    this.#free = size
  }

  /** A share without memory yet. `onLost` is called at most once, when others need its memory; its owner then releases it. */
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
    // A body that is larger than all memory gets all memory.
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

  /** The largest share gives up, unless it has less than the waiting one would have: then that waits for others to end. */
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
