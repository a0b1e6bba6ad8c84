/** Splits a stream into frames: a varint length, then that many bytes. It buffers one frame at most. */

/** The stream breaks the framing; nothing after this point can be read. */
export class InvalidFrame extends Error {
  override readonly name = "InvalidFrame"
}

/** An answer with twenty peers and a few addresses each has 4 KiB. */
export const maxFrameSize = 64 * 1024

const maxPrefixLength = 3

export class FrameSplitter {
  readonly #maxSize: number
  /** The incomplete frame, and how many of its bytes have arrived. */
  #frame: Uint8Array | undefined
  #filled = 0
  #length = 0
  #prefix = 0

  /** `maxSize` is the size of the largest frame, in bytes. */
  constructor(maxSize = maxFrameSize) {
    this.#maxSize = maxSize
  }

  /** Returns the frames that `chunk` completes; one that lies within a chunk is a view of it. Throws `InvalidFrame`. */
  push(chunk: Uint8Array): Array<Uint8Array> {
    const frames: Array<Uint8Array> = []
    let position = 0
    while (position < chunk.length) {
      if (this.#frame === undefined) {
        const byte = chunk[position++] ?? 0
        this.#length += (byte & 0x7f) * 2 ** (7 * this.#prefix++)
        if (this.#length > this.#maxSize || (byte >= 0x80 && this.#prefix >= maxPrefixLength)) {
          throw new InvalidFrame(`a frame is larger than ${this.#maxSize} bytes`)
        }
        if (byte >= 0x80) continue
        const length = this.#length
        this.#length = 0
        this.#prefix = 0
        if (chunk.length - position >= length) {
          frames.push(chunk.subarray(position, position + length))
          position += length
        } else {
          this.#frame = new Uint8Array(length)
        }
        continue
      }
      const part = chunk.subarray(position, position + this.#frame.length - this.#filled)
      this.#frame.set(part, this.#filled)
      this.#filled += part.length
      position += part.length
      if (this.#filled === this.#frame.length) {
        const frame = this.#frame
        this.#frame = undefined
        this.#filled = 0
        frames.push(frame)
      }
    }
    return frames
  }
}
