/** The memory that one small body is read into. */
import type { ByteSink } from "@spegel-ts/transfer/PeerTransport"
import type { AttemptEntry } from "../observe/PullRecord.ts"
import type { Share } from "./SharedMemory.ts"

/**
 * Takes all of the body's memory at once; or, with a `Share`, memory that grows as bytes come. It is a sink because the stream
 * `PeerResponse.body` would allocate memory for each chunk before the share could grant or refuse it.
 */
export class GrowingBuffer implements ByteSink {
  /** Counts the bytes that have come. */
  readonly #entry: AttemptEntry
  readonly #size: number
  readonly #share: Share | undefined
  #bytes: Buffer

  /** For a body of `size` bytes, the first `room` of which have memory already. */
  constructor(entry: AttemptEntry, size: number, room: number, share: Share | undefined) {
    this.#entry = entry
    this.#size = size
    this.#share = share
    this.#bytes = Buffer.allocUnsafeSlow(room)
  }

  /** All of it, once it is complete. */
  get bytes(): Buffer {
    return this.#bytes
  }

  space(): Buffer {
    return this.#bytes.subarray(this.#entry.bytes)
  }

  write(chunk: Buffer, resume: () => void): boolean {
    const filled = this.#entry.bytes + chunk.length
    const room = this.#bytes.length
    const enough = filled < room || room === this.#size
    const wanted = Math.min(this.#size, Math.max(2 * room, filled))
    if (enough || this.#share === undefined) this.#append(chunk)
    else {
      const grow = () => {
        this.#bytes = Buffer.concat([this.#bytes.subarray(0, this.#entry.bytes)], wanted)
        this.#append(chunk)
      }
      const taken = this.#share.take(wanted - room, () => {
        grow()
        resume()
      })
      if (!taken) return false
      grow()
    }
    return true
  }

  #append(chunk: Buffer): void {
    if (chunk.buffer !== this.#bytes.buffer) chunk.copy(this.#bytes, this.#entry.bytes)
    this.#entry.bytes += chunk.length
  }
}
