/** A clock that jumps from timer to timer. Time stands still until a timer, and everything that it sets off, has run. */

interface Timer {
  readonly at: number
  /** Timers due at the same moment run in the order in which they were set. */
  readonly order: number
  run: (() => void) | undefined
}

const isBefore = (a: Timer, b: Timer): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

export class VirtualClock {
  /** In milliseconds. */
  now: number
  readonly #heap: Array<Timer> = []
  #order = 0

  constructor(now = 0) {
    this.now = now
  }

  /** Calls back when `millis` have passed; returns what cancels it. */
  after(millis: number, run: () => void): () => void {
    const timer: Timer = { at: this.now + Math.max(0, millis), order: this.#order++, run }
    this.#push(timer)
    return () => {
      timer.run = undefined
    }
  }

  /** Resolves when `millis` have passed. */
  sleep(millis: number): Promise<void> {
    return new Promise((resolve) => void this.after(millis, resolve))
  }

  /** Lets everything happen that is due within `millis`. */
  async pass(millis: number): Promise<void> {
    const end = this.now + millis
    for (;;) {
      // Promises that the last timer resolved continue before the next timer.
      await new Promise((resolve) => setImmediate(resolve))
      const next = this.#heap[0]
      if (next === undefined || next.at > end) break
      this.now = next.at
      while (this.#heap[0] !== undefined && this.#heap[0].at <= this.now) this.#pop()?.run?.()
    }
    this.now = end
  }

  #push(timer: Timer): void {
    let at = this.#heap.push(timer) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = this.#heap[parent]
      if (above === undefined || isBefore(above, timer)) break
      this.#heap[at] = above
      at = parent
    }
    this.#heap[at] = timer
  }

  #pop(): Timer | undefined {
    const first = this.#heap[0]
    const last = this.#heap.pop()
    if (last === undefined || this.#heap.length === 0) return first
    let at = 0
    for (;;) {
      const [left, right] = [this.#heap[2 * at + 1], this.#heap[2 * at + 2]]
      if (left === undefined) break
      const below = right !== undefined && isBefore(right, left) ? right : left
      if (isBefore(last, below)) break
      this.#heap[at] = below
      at = below === left ? 2 * at + 1 : 2 * at + 2
    }
    this.#heap[at] = last
    return first
  }
}
