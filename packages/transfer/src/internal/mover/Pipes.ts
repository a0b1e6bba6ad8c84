/**
 * The pipes that peers' bodies pass through. They are kept, because making and sizing one costs as much as a large splice, and
 * because the kernel bounds how many a user may have.
 */
import type { Libc } from "./Libc.ts"

export interface Pipe {
  readonly read: number
  readonly write: number
}

/** In bytes. The kernel counts pages of 4 KiB: a fragment of a packet takes the place of a page, however small it is. */
const wantedSize = 256 * 1024
/** With a smaller pipe the portable layer is faster. */
const leastSize = 64 * 1024
const maxKept = 32

export class Pipes {
  readonly #libc: Libc
  readonly #kept: Array<Pipe> = []

  constructor(libc: Libc) {
    this.#libc = libc
  }

  get kept(): number {
    return this.#kept.length
  }

  /**
   * An empty pipe. Undefined if no descriptor is left, or if the user has so many pipes that a new one has 8 KiB and may not
   * grow (`fs.pipe-user-pages-soft` in pipe(7)).
   */
  acquire(): Pipe | undefined {
    const kept = this.#kept.pop()
    if (kept !== undefined) return kept
    const ends = this.#libc.newPipe()
    if (ends === undefined) return undefined
    const pipe = { read: ends[0], write: ends[1] }
    if (this.#libc.resizePipe(pipe.write, wantedSize) >= leastSize) return pipe
    this.#close(pipe)
    return undefined
  }

  /** Keeps a pipe for another body. One that still holds bytes is closed. */
  release(pipe: Pipe, empty: boolean): void {
    if (empty && this.#kept.length < maxKept) this.#kept.push(pipe)
    else this.#close(pipe)
  }

  close(): void {
    for (const pipe of this.#kept.splice(0)) this.#close(pipe)
  }

  #close({ read, write }: Pipe): void {
    this.#libc.close(read)
    this.#libc.close(write)
  }
}
