/**
 * A fixed amount of memory for bodies that are being read. It is taken as their bytes come: an announced length reserves
 * nothing. If no memory is left, the body that has most gives up for one that has less, so that large bodies that crawl do not
 * keep small ones waiting. A body that waits for too long gives up as well: complete ones may be held for as long as their clients
 * take.
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
  /** Ends the wait. */
  readonly timer: NodeJS.Timeout
}

export class SharedMemory {
  readonly #size: number
  readonly #maxWaitMillis: number
  readonly #shares = new Set<Taken>()
  /** Bodies that wait for memory, in order. */
  #waiting: ReadonlyArray<Waiting> = []
  #free: number

  /** `size` in bytes; `maxWaitMillis` is how long a body waits for memory before it gives up. */
  constructor(size: number, maxWaitMillis: number) {
    this.#size = size
    this.#maxWaitMillis = maxWaitMillis
    this.#free = size
  }

  /**
   * A share without memory yet. `onLost` is called at most once, when others need its memory, or when it has waited for too long;
   * its owner then releases it.
   */
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
        this.#stopWaiting(share)
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
    const timer = setTimeout(() => this.#giveUp(share), this.#maxWaitMillis)
    // The share that gives up may be released at once: then this one is served before `take` returns.
    let hasReturned = false
    let isTaken = false
    const served = () => {
      isTaken = true
      if (hasReturned) onTaken()
    }
    const waiting = { share, bytes, onTaken: served, timer }
    this.#waiting = [...this.#waiting, waiting]
    this.#makeRoom(waiting)
    hasReturned = true
    return isTaken
  }

  /** The largest share gives up, unless it has less than the waiting one would have: then that waits for others to end. */
  #makeRoom({ bytes, share }: Waiting): void {
    const [largest] = [...this.#shares].filter((one) => one !== share && !one.settled)
      .toSorted((one, other) => other.bytes - one.bytes)
    if (largest === undefined || largest.bytes < share.bytes + bytes) return
    this.#giveUp(largest)
  }

  #giveUp(share: Taken): void {
    if (share.settled) return
    share.settled = true
    share.onLost()
  }

  #stopWaiting(share: Taken): void {
    for (const waiting of this.#waiting) if (waiting.share === share) clearTimeout(waiting.timer)
    this.#waiting = this.#waiting.filter((waiting) => waiting.share !== share)
  }

  #serve(): void {
    while (true) {
      const [first, ...others] = this.#waiting
      if (first === undefined) return
      if (first.bytes > this.#free) return this.#makeRoom(first)
      this.#free -= first.bytes
      first.share.bytes += first.bytes
      clearTimeout(first.timer)
      this.#waiting = others
      first.onTaken()
    }
  }
}
