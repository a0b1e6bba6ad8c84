/**
 * The memory that one body passes through: bytes are read into it, sent and hashed from it, and overwritten once all who
 * use them have let go.
 */
import { bodyBuffers, largeSize, smallSize } from "./BufferPool.ts"

/** Below this speed a client gets small chunks, which cost more CPU a byte and hold less memory while they wait. */
const slowBytesPerMilli = 10_000

/**
 * Bodies that are hashed read so much at once, all of them together: others wait so long for their turn of the event loop.
 * Each reads at least so much.
 */
const turnSize = largeSize
const minTurnSize = 256 * 1024

/** Bytes that are in use. */
interface Part {
  readonly bytes: Buffer
  readonly memory: Memory
  users: number
}

/** A pooled buffer, in one part or in halves. */
class Memory {
  readonly parts: ReadonlyArray<Part>
  /** Nothing is read into it any more; the pool has it when nobody uses it. */
  retired = false
  readonly #buffer: Buffer

  constructor(left: number, inHalves: boolean) {
    this.#buffer = bodyBuffers.acquire(left)
    const { length } = this.#buffer
    const size = inHalves && length === largeSize ? length / 2 : length
    this.parts = Array.from({ length: length / size }, (_, index) => ({
      bytes: this.#buffer.subarray(index * size, (index + 1) * size),
      memory: this,
      users: 0
    }))
  }

  get large(): boolean {
    return this.#buffer.length === largeSize
  }

  releaseIfUnused(): void {
    if (this.retired && this.parts.every(({ users }) => users === 0)) bodyBuffers.release(this.#buffer)
  }
}

export class BodyBuffer {
  readonly #inHalves: boolean
  #left: number
  #memory: Memory
  #next = 0
  #onFree: (() => void) | undefined
  #slow = false
  /** Speed is told from one wait for the client to the next: in between, the kernel takes what it has room for. */
  #waitedAt = performance.now()
  #sinceWait = 0

  /** For a body of `left` bytes. `inHalves`: one half is read into while the other is in use. */
  constructor(left: number, inHalves: boolean) {
    this.#left = left
    this.#inHalves = inHalves
    this.#memory = new Memory(left, inHalves)
  }

  /** Where the next bytes are to be read to, once it is `free`; the same until they are lent. */
  get space(): Buffer {
    const { bytes } = this.#part
    return this.#inHalves ? bytes.subarray(0, Math.max(minTurnSize, turnSize / bodyBuffers.lent)) : bytes
  }

  get free(): boolean {
    return this.#part.users === 0
  }

  /** Calls `onFree` when `space`, which is not free now, is. */
  whenFree(onFree: () => void): void {
    this.#onFree = onFree
  }

  /**
   * A chunk at the beginning of `space`, which moves on, is in use by so many users; gives what each of them calls once,
   * when it does not read the chunk any more. A chunk that is elsewhere is nobody's concern.
   */
  lend(chunk: Buffer, users: number): () => void {
    this.#left -= chunk.length
    this.#sinceWait += chunk.length
    const part = this.#part
    if (chunk.buffer !== part.bytes.buffer || chunk.byteOffset !== part.bytes.byteOffset) return () => {}
    part.users += users
    this.#next = (this.#next + 1) % this.#memory.parts.length
    this.#resize()
    return () => {
      part.users--
      if (part.memory.retired) return part.memory.releaseIfUnused()
      if (part.users > 0 || part !== this.#part) return
      const onFree = this.#onFree
      this.#onFree = undefined
      onFree?.()
    }
  }

  /** The client has taken bytes that it had to be waited for. */
  waited(): void {
    const now = performance.now()
    this.#slow = this.#sinceWait < slowBytesPerMilli * (now - this.#waitedAt)
    this.#waitedAt = now
    this.#sinceWait = 0
  }

  /** Nothing is read into it any more; what is in use still is let go of later. Once only. */
  close(): void {
    this.#onFree = undefined
    this.#retire()
  }

  get #part(): Part {
    const part = this.#memory.parts[this.#next]
    if (part === undefined) throw new RangeError("a body's memory has no such part")
    return part
  }

  /** Small memory for a slow client, large for one that is not slow any more. */
  #resize(): void {
    const { large } = this.#memory
    const wanted = !this.#slow && (large || bodyBuffers.givesLarge(this.#left))
    if (wanted === large) return
    this.#retire()
    this.#memory = new Memory(wanted ? this.#left : smallSize, this.#inHalves)
    this.#next = 0
  }

  #retire(): void {
    this.#memory.retired = true
    this.#memory.releaseIfUnused()
  }
}
