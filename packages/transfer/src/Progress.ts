/**
 * Counters of a body's progress, in shared memory: the thread that moves the body writes them, and watchdogs read them
 * without a message. A body has one `Progress`, which continues to count when another peer takes over.
 */

const cells = { taken: 0, moved: 1, waited: 2, waitingSince: 3 } as const

const nanosPerMilli = 1e6

/** Counters in bytes and milliseconds. One side writes them, and any thread reads them at any time. */
export class Progress {
  /** Another thread makes a `Progress` of its own over it. */
  readonly memory: SharedArrayBuffer
  readonly #cells: BigInt64Array

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(8 * Object.keys(cells).length)) {
    this.memory = memory
    this.#cells = new BigInt64Array(memory)
  }

  /** The number of bytes that came from the source. */
  get taken(): number {
    return Number(Atomics.load(this.#cells, cells.taken))
  }

  /** The number of bytes that the client's socket has accepted. The next byte to send is this many bytes after the first. */
  get moved(): number {
    return Number(Atomics.load(this.#cells, cells.moved))
  }

  /** How long the client has waited for the source in all. Time in which the source waited for the client does not count. */
  get waitedMillis(): number {
    return Number(Atomics.load(this.#cells, cells.waited)) / nanosPerMilli + this.silentMillis
  }

  /** How long the client has been waiting for the source's next byte; 0 while the client is the slower one. */
  get silentMillis(): number {
    const since = Atomics.load(this.#cells, cells.waitingSince)
    return since === 0n ? 0 : Number(process.hrtime.bigint() - since) / nanosPerMilli
  }

  /** The client begins to wait for the source. */
  waits(): void {
    if (Atomics.load(this.#cells, cells.waitingSince) === 0n) {
      Atomics.store(this.#cells, cells.waitingSince, process.hrtime.bigint())
    }
  }

  /** The client stops waiting for the source. */
  waitsNoMore(): void {
    const since = Atomics.exchange(this.#cells, cells.waitingSince, 0n)
    if (since !== 0n) Atomics.add(this.#cells, cells.waited, process.hrtime.bigint() - since)
  }

  /** Counts bytes that came from the source. */
  take(bytes: number): void {
    this.waitsNoMore()
    Atomics.add(this.#cells, cells.taken, BigInt(bytes))
  }

  /** Counts bytes that the client's socket has accepted. */
  move(bytes: number): void {
    Atomics.add(this.#cells, cells.moved, BigInt(bytes))
  }
}
