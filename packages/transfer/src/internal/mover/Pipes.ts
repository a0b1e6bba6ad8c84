/**
 * The pipes that bodies of peers pass through. They are kept: making one and giving it its size costs as much as a large
 * splice, and what a user may have of them is bounded.
 */
import type { Libc } from "./Libc.ts"

export interface Pipe {
  readonly read: number
  readonly write: number
}

/** In bytes, as pages of 4 KiB count. A fragment of a packet fills a page's place, however small it is. */
const wantedSize = 256 * 1024
/** With less, a body does better in the portable layer. */
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
   * An empty pipe; undefined where there are no descriptors, or where the user has so many pipes that a new one has 8 KiB and
   * may not grow (`fs.pipe-user-pages-soft` in pipe(7)).
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

  /** One that has bytes in it is of no more use. */
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
