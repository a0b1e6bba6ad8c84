/** Buffers of one size that are used again instead of being collected. Bounds what is kept, not what is lent. */
export class BufferPool {
  readonly #free: Array<Buffer> = []
  readonly #size: number
  readonly #max: number
  constructor(size: number, max: number) {
    this.#size = size
    this.#max = max
  }
  acquire(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#size)
  }
  /** Only when nobody reads or writes the buffer any more; one that may still be in use is left to the collector. */
  release(buffer: Buffer): void {
    if (this.#free.length < this.#max) this.#free.push(buffer)
  }
}
