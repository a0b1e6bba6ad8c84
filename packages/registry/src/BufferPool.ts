/**
 * Buffers that bodies pass through, used again instead of being collected. Large reads cost least per byte, so a body
 * gets a large buffer while there is one; beyond a bound there are only small ones, so that many slow clients cost little.
 */
export const largeSize = 512 * 1024
export const smallSize = 64 * 1024
const maxLarge = 8
const maxFreeSmall = 64

export class BufferPool {
  readonly #large: Array<Buffer> = []
  readonly #small: Array<Buffer> = []
  #lentLarge = 0
  #lentSmall = 0

  /** A buffer for the next bytes of a body, of which so many are left; it may be smaller. */
  acquire(left: number): Buffer {
    if (left > smallSize && this.#lentLarge < maxLarge) {
      this.#lentLarge++
      return this.#large.pop() ?? Buffer.allocUnsafeSlow(largeSize)
    }
    this.#lentSmall++
    return this.#small.pop() ?? Buffer.allocUnsafeSlow(smallSize)
  }

  /** Only when nobody reads or writes the buffer any more. */
  release(buffer: Buffer): void {
    this.forget(buffer)
    if (buffer.length === largeSize) this.#large.push(buffer)
    else if (this.#small.length < maxFreeSmall) this.#small.push(buffer)
  }

  /** The buffer may still be in use: it is left to the collector. */
  forget(buffer: Buffer): void {
    if (buffer.length === largeSize) this.#lentLarge--
    else this.#lentSmall--
  }

  /** Buffers that are in use now. */
  get lent(): number {
    return this.#lentLarge + this.#lentSmall
  }
}

/** What all bodies share, whether they come from a file or from a peer. */
export const bodyBuffers = new BufferPool()
