/** A peer's body as a `Stream`, for readers that want one more than the last bit of speed. */
import { Effect, Queue, Stream } from "effect"
import type { ByteSink, TransportError } from "../../PeerTransport.ts"

/** The size of the memory that chunks are cut from. */
const blockSize = 64 * 1024
/** The rest of a block that is too small to read into. */
const leastSpace = 8 * 1024

/** Chunks never share bytes: what was handed out is not read into again. */
class Blocks {
  #free = Buffer.alloc(0)

  readonly space = (): Buffer => {
    if (this.#free.length < leastSpace) this.#free = Buffer.allocUnsafeSlow(blockSize)
    return this.#free
  }

  /** Takes a chunk out of its block. A chunk that arrived with the head has memory of its own. */
  take(chunk: Buffer): Buffer {
    if (chunk.buffer === this.#free.buffer) this.#free = this.#free.subarray(chunk.length)
    return chunk
  }
}

interface Delivery {
  readonly chunk: Buffer
  readonly resume: () => void
}

/** Runs `relay` while the stream is read; ending the stream early interrupts it. */
export const make = (
  relay: (sink: ByteSink) => Effect.Effect<void, TransportError>
): Stream.Stream<Uint8Array, TransportError> =>
  Stream.callback<Delivery, TransportError>((queue) => {
    const blocks = new Blocks()
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
