/**
 * Keeps sendfile(2) from waiting for a disk, which would delay every other body: it is called only for bytes in the page
 * cache. The kernel is told to read the others ahead, and they are looked at again a moment later.
 */
import { errno, type Libc } from "./Libc.ts"

/** A part of a file is looked at by its first and last byte. A page between them that was evicted costs a wait. */
const windowBytes = 1024 * 1024
/** How many bytes the kernel reads ahead of those that are sent. */
const aheadBytes = 4 * 1024 * 1024
/** The longest pause between looks. A look costs more than what a fast disk reads meanwhile, so pauses double up to this. */
const maxPatienceMillis = 8
/** After this many looks sendfile waits for the disk: memory may be so short that the part never stays in the cache. */
const maxLooks = 500

export class ColdFile {
  readonly #libc: Libc
  readonly #fd: number
  readonly #end: number
  #cachedTo = 0
  #askedTo = 0
  #looks = 0

  /** `end` is the offset after the last byte that is sent. */
  constructor(libc: Libc, fd: number, end: number) {
    this.#libc = libc
    this.#fd = fd
    this.#end = end
  }

  /** The pause before the next look, after one that found 0 bytes. */
  get patienceMillis(): number {
    return Math.min(2 ** (this.#looks - 1), maxPatienceMillis)
  }

  /** How many bytes from here on can be sent without the disk; 0 if it has to be waited for. */
  cachedFrom(position: number): number {
    if (position >= this.#cachedTo && !this.#look(position, Math.min(position + windowBytes, this.#end))) return 0
    return this.#cachedTo - position
  }

  #look(start: number, end: number): boolean {
    const first = this.#read(start)
    if (first === "unknown" || (first === "cached" && this.#read(end - 1) === "cached") || this.#looks >= maxLooks) {
      this.#cachedTo = first === "unknown" ? Infinity : end
      this.#looks = 0
      return true
    }
    this.#looks++
    if (this.#askedTo < end) {
      const from = Math.max(start, this.#askedTo)
      this.#askedTo = Math.min(from + aheadBytes, this.#end)
      this.#libc.readAhead(this.#fd, from, this.#askedTo - from)
    }
    return false
  }

  /** The end of a file counts as cached: sendfile reports it. Not every file system can tell. */
  #read(position: number): "cached" | "cold" | "unknown" {
    if (this.#libc.readCached(this.#fd, position) >= 0) return "cached"
    return this.#libc.errno() === errno.EAGAIN ? "cold" : "unknown"
  }
}
