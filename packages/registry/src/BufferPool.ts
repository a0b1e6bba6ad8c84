/**
 * Buffers that bodies pass through, used again instead of being collected. Large reads cost least per byte, as long as what
 * was read is still in the core's cache when it is sent: so a body gets a large buffer while there is one. Beyond a bound
 * there are only small ones, so that many slow clients cost little.
 */
export const largeSize = 768 * 1024
export const smallSize = 64 * 1024
const maxLarge = 8
const maxSharedSmall = 128

/**
 * How far into its memory a buffer begins. Large memory begins 16 bytes into a page, where malloc maps it; an AMD EPYC copies
 * a file's cached pages to there, 8 to 31 bytes beyond a page's begin, several times as slowly as elsewhere. 48 bytes on, a
 * cache line begins.
 */
const allocationOffset = 48

/** Shared, so that a hashing thread reads it in place. Such memory is collected late, if ever: none is let go of. */
const allocate = (size: number): Buffer =>
  Buffer.from(new SharedArrayBuffer(allocationOffset + size), allocationOffset, size)

export class BufferPool {
  readonly #large: Array<Buffer> = []
  readonly #small: Array<Buffer> = []
  #lentLarge = 0
  #lentSmall = 0

  /** Whether a body of which so many bytes are left would get a large buffer now. */
  givesLarge(left: number): boolean {
    return left > smallSize && this.#lentLarge < maxLarge
  }

  /** A buffer for the next bytes of a body, of which so many are left; it may be smaller. */
  acquire(left: number): Buffer {
    if (this.givesLarge(left)) {
      this.#lentLarge++
      return this.#large.pop() ?? allocate(largeSize)
    }
    this.#lentSmall++
    const free = this.#small.pop()
    if (free !== undefined) return free
    return this.#lentSmall <= maxSharedSmall ? allocate(smallSize) : Buffer.allocUnsafeSlow(smallSize)
  }

  /** Only when nobody reads or writes the buffer any more. */
  release(buffer: Buffer): void {
    if (buffer.length === largeSize) {
      this.#lentLarge--
      this.#large.push(buffer)
    } else {
      this.#lentSmall--
      if (buffer.buffer instanceof SharedArrayBuffer) this.#small.push(buffer)
    }
  }

  /** Buffers that are in use now. */
  get lent(): number {
    return this.#lentLarge + this.#lentSmall
  }
}

/** What all bodies share, whether they come from a file or from a peer. */
export const bodyBuffers = new BufferPool()
