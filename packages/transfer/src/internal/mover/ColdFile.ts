/**
 * Keeps sendfile(2) from waiting for a disk, which would hold up every other body: it is called only for bytes that are in
 * the page cache. The kernel is told to read others ahead, and they are looked at again a moment later.
 */
import { errno, type Libc } from "./Libc.ts"

/** A part that is looked at by its first and last byte. Whatever is evicted in between costs a wait. */
const windowBytes = 1024 * 1024
/** Bytes that the kernel reads ahead of those that are sent. */
const aheadBytes = 4 * 1024 * 1024
/** A look costs more than the bytes that a fast disk gives meanwhile; so they become rare soon. */
const maxPatienceMillis = 8
/** A part that is not there after so many looks is waited for by sendfile: memory may be so short that it never stays. */
const maxLooks = 500

export class ColdFile {
  readonly #libc: Libc
  readonly #fd: number
  readonly #end: number
  #cachedTo = 0
  #askedTo = 0
  #looks = 0

  /** `end` is the byte after the last that is sent. */
  constructor(libc: Libc, fd: number, end: number) {
    this.#libc = libc
    this.#fd = fd
    this.#end = end
  }

  /** When to look again where 0 bytes can be sent. */
  get patienceMillis(): number {
    return Math.min(2 ** (this.#looks - 1), maxPatienceMillis)
  }

  /** Bytes from here on that can be sent without a disk; 0 where one is waited for. */
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

  /** A file's end counts as cached: sendfile tells of it. Not every file system can say. */
  #read(position: number): "cached" | "cold" | "unknown" {
    if (this.#libc.readCached(this.#fd, position) >= 0) return "cached"
    return this.#libc.errno() === errno.EAGAIN ? "cold" : "unknown"
  }
}
