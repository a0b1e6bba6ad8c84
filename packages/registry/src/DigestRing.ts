/**
 * Commands to a hashing thread, in memory that it shares with the event loop. To write one there costs less than a
 * message, and wakes the thread only where it sleeps; the thread answers by counting, and sends a message only where
 * somebody waits for one. Both sides use this module, which imports nothing of the project.
 */

/** Bytes of a memory that the thread knows by number, or, where there is none, the next message on its port. */
export interface Command {
  readonly job: number
  readonly memory: number
  readonly offset: number
  readonly length: number
}

/** In place of a memory's number: the command is the next message. */
export const byMessage = -1

/** Counters that different cores write are in cache lines of their own. */
const [told, taken, watched, commands] = [0, 16, 32, 48]
const capacity = 1024
const commandSize = 4

/** Where a command is, by how many were before it. */
const slot = (count: number) => commands + (count & (capacity - 1)) * commandSize

export class DigestRing {
  readonly shared: SharedArrayBuffer
  readonly #words: Int32Array
  /** How many commands this side has written or read; it wraps around as the counters do. */
  #count = 0

  constructor(shared = new SharedArrayBuffer((commands + capacity * commandSize) * Int32Array.BYTES_PER_ELEMENT)) {
    this.shared = shared
    this.#words = new Int32Array(shared)
  }

  /** Writes a command; false where the thread has as many before it as there is room for. */
  offer({ job, length, memory, offset }: Command): boolean {
    if (((this.#count - this.taken) | 0) >= capacity) return false
    const at = slot(this.#count)
    this.#words[at] = job
    this.#words[at + 1] = memory
    this.#words[at + 2] = offset
    this.#words[at + 3] = length
    this.#count = (this.#count + 1) | 0
    Atomics.store(this.#words, told, this.#count)
    Atomics.notify(this.#words, told)
    return true
  }

  /** How many commands the thread has taken, their bytes included. */
  get taken(): number {
    return Atomics.load(this.#words, taken)
  }

  /** Asks the thread for a message once it has taken another command; `taken` is to be read after this. */
  watch(): void {
    Atomics.store(this.#words, watched, 1)
  }

  /** The next command, on the thread's side: waits for it, and blocks the thread. */
  next(): Command {
    while (Atomics.load(this.#words, told) === this.#count) Atomics.wait(this.#words, told, this.#count)
    const at = slot(this.#count)
    return { job: this.#word(at), memory: this.#word(at + 1), offset: this.#word(at + 2), length: this.#word(at + 3) }
  }

  /** The command was taken, on the thread's side; whether somebody waits for a message that says so. */
  take(): boolean {
    this.#count = (this.#count + 1) | 0
    Atomics.store(this.#words, taken, this.#count)
    return Atomics.exchange(this.#words, watched, 0) === 1
  }

  #word(at: number): number {
    return this.#words[at] ?? 0
  }
}
