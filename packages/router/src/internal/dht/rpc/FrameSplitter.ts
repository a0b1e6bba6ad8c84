/** Splits a stream into frames of a varint length and that many bytes. Keeps no more than one frame. */

/** The stream breaks the framing; nothing behind it can be read. */
export class InvalidFrame extends Error {
  override readonly name = "InvalidFrame"
}

/** Twenty peers with a few addresses each are 4 KiB. */
export const maxFrameSize = 64 * 1024

const maxPrefixLength = 3

export class FrameSplitter {
  /** The frame that is being filled, and how far it is. */
  #frame: Uint8Array | undefined
  #filled = 0
  #length = 0
  #prefix = 0

  /** Frames that `chunk` completes. They are views where a frame lies in one chunk. Throws `InvalidFrame`. */
  push(chunk: Uint8Array): Array<Uint8Array> {
    const frames: Array<Uint8Array> = []
    let position = 0
    while (position < chunk.length) {
      if (this.#frame === undefined) {
        const byte = chunk[position++] ?? 0
        this.#length += (byte & 0x7f) * 2 ** (7 * this.#prefix++)
        if (this.#length > maxFrameSize || (byte >= 0x80 && this.#prefix >= maxPrefixLength)) {
          throw new InvalidFrame(`a frame is larger than ${maxFrameSize} bytes`)
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
