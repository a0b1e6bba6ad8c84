/** A peer's body as a `Stream`, for readers that want one more than the last bit of speed. */
import { Effect, Queue, Stream } from "effect"
import type { ByteSink, TransportError } from "../../PeerTransport.ts"

/** The most memory that chunks are cut from at once, in bytes. */
const blockSize = 256 * 1024
/** The rest of a block is not read into if it is smaller than this and than what is left of the body. */
const leastSpace = 32 * 1024

/** The memory of chunks. They never share bytes: what was handed out is not read into again. */
class Blocks {
  #free = Buffer.alloc(0)
  /** Bytes of the body that are still to come. */
  #left: number

  constructor(length: number) {
    this.#left = length
  }

  readonly space = (): Buffer => {
    if (this.#free.length < Math.min(leastSpace, this.#left)) {
      this.#free = Buffer.allocUnsafeSlow(Math.min(blockSize, this.#left))
    }
    return this.#free
  }

  /** Takes a chunk out of its block. The first bytes, which arrived with the head, have memory of their own. */
  take(chunk: Buffer): Buffer {
    this.#left -= chunk.length
    if (chunk.buffer === this.#free.buffer) this.#free = this.#free.subarray(chunk.length)
    return chunk
  }
}

interface Delivery {
  readonly chunk: Buffer
  readonly resume: () => void
}

/** Runs `relay` for a body of `length` bytes while the stream is read. Ending the stream early interrupts it. */
export const make = (
  length: number,
  relay: (sink: ByteSink) => Effect.Effect<void, TransportError>
): Stream.Stream<Uint8Array, TransportError> =>
  Stream.callback<Delivery, TransportError>((queue) => {
    const blocks = new Blocks(length)
    const relaying = relay({
      space: blocks.space,
      write: (chunk, resume) => {
        // At most one waits: the next comes after `resume`.
        Queue.offerUnsafe(queue, { chunk: blocks.take(chunk), resume })
        return false
      }
    })
    return Effect.andThen(relaying, Queue.end(queue))
  }).pipe(
    Stream.map(({ chunk, resume }) => {
      resume()
      return chunk
    })
  )
