/**
 * Counters of a body's progress, in shared memory. The thread that moves the body writes them; watchdogs read them without
 * a message. Each body has one `Progress`, which goes on counting when another peer takes over.
 */

const cells = { taken: 0, moved: 1, waited: 2, waitingSince: 3 } as const

const nanosPerMilli = 1e6

export class Progress {
  /** For another thread, which makes a `Progress` of its own over it. */
  readonly memory: SharedArrayBuffer
  readonly #cells: BigInt64Array

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(8 * Object.keys(cells).length)) {
    this.memory = memory
    this.#cells = new BigInt64Array(memory)
  }

  /** Bytes that came from the source. */
  get taken(): number {
    return Number(Atomics.load(this.#cells, cells.taken))
  }

  /** Bytes that the client's socket has for good: the next one to send is this many bytes after the first. */
  get moved(): number {
    return Number(Atomics.load(this.#cells, cells.moved))
  }

  /** Total time for which the client has waited for the source. Time in which the source waits for the client is not included. */
  get waitedMillis(): number {
    return Number(Atomics.load(this.#cells, cells.waited)) / nanosPerMilli + this.silentMillis
  }

  /** Time since which the client has been waiting for the source's next byte; 0 while the client is the slower one. */
  get silentMillis(): number {
    const since = Atomics.load(this.#cells, cells.waitingSince)
    return since === 0n ? 0 : Number(process.hrtime.bigint() - since) / nanosPerMilli
  }

  /** From now on the client waits for the source. */
  waits(): void {
    if (Atomics.load(this.#cells, cells.waitingSince) === 0n) {
      Atomics.store(this.#cells, cells.waitingSince, process.hrtime.bigint())
    }
  }

  /** The client does not wait for the source any more. */
  waitsNoMore(): void {
    const since = Atomics.exchange(this.#cells, cells.waitingSince, 0n)
    if (since !== 0n) Atomics.add(this.#cells, cells.waited, process.hrtime.bigint() - since)
  }

  /** Bytes came from the source. */
  take(bytes: number): void {
    this.waitsNoMore()
    Atomics.add(this.#cells, cells.taken, BigInt(bytes))
  }

  /** The client's socket has bytes. */
  move(bytes: number): void {
    Atomics.add(this.#cells, cells.moved, BigInt(bytes))
  }
}
