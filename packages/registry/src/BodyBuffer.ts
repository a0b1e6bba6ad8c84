/**
 * The memory that one body passes through: bytes are read into it, sent and hashed from it, and overwritten once all who
 * use them have let go.
 */
import { bodyBuffers, largeSize, smallSize } from "./BufferPool.ts"

/** Below this speed a client gets small chunks, which cost more CPU a byte and hold less memory while they wait. */
const slowBytesPerMilli = 10_000

/** Of a large buffer's parts one is read into, one is sent, and one is hashed. */
const partsOfLarge = 3

/** Bytes that so many users read. */
interface Part {
  readonly bytes: Buffer
  /** What each user calls once. */
  readonly giveBack: () => void
  users: number
  /** How many chunks of the body were lent before. */
  lentAt: number
}

/** A pooled buffer, in one part or in several. */
class Memory {
  readonly parts: ReadonlyArray<Part>
  readonly #buffer: Buffer
  #retired = false

  /** `onFree` is told of a part that nobody reads any more, as long as something may be read into it. */
  constructor(left: number, inParts: boolean, onFree: (part: Part) => void) {
    this.#buffer = bodyBuffers.acquire(left)
    const { length } = this.#buffer
    const size = inParts && length === largeSize ? length / partsOfLarge : length
    this.parts = Array.from({ length: length / size }, (_, index) => {
      const part: Part = {
        bytes: this.#buffer.subarray(index * size, (index + 1) * size),
        giveBack: () => {
          part.users--
          if (this.#retired) this.#releaseIfUnused()
          else if (part.users === 0) onFree(part)
        },
        users: 0,
        lentAt: 0
      }
      return part
    })
  }

  get large(): boolean {
    return this.#buffer.length === largeSize
  }

  /** Nothing is read into it any more; the pool has it when nobody uses it. Once only. */
  retire(): void {
    this.#retired = true
    this.#releaseIfUnused()
  }

  #releaseIfUnused(): void {
    if (this.parts.every(({ users }) => users === 0)) bodyBuffers.release(this.#buffer)
  }
}

/** Gives back a chunk that is elsewhere. */
const nothing = () => {}

export class BodyBuffer {
  readonly #inParts: boolean
  #left: number
  #memory: Memory
  /** What is read into next. */
  #part: Part
  /** Chunks that were lent. */
  #lent = 0
  #onFree: (() => void) | undefined
  #slow = false
  /** Speed is told from one wait for the client to the next: in between, the kernel takes what it has room for. */
  #waitedAt = performance.now()
  #sinceWait = 0

  /** For a body of `left` bytes. `inParts`: one part is read into while the others are in use. */
  constructor(left: number, inParts: boolean) {
    this.#left = left
    this.#inParts = inParts
    this.#memory = this.#make(left)
    this.#part = this.#choose()
  }

  /** Where the next bytes are to be read to, once it is `free`; the same until they are lent. */
  get space(): Buffer {
    return this.#part.bytes
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
    if (chunk.buffer !== part.bytes.buffer || chunk.byteOffset !== part.bytes.byteOffset) return nothing
    part.users += users
    part.lentAt = this.#lent++
    this.#resize()
    this.#part = this.#choose()
    return part.giveBack
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
    this.#memory.retire()
  }

  /** Small memory for a slow client, large for one that is not slow any more. */
  #resize(): void {
    const { large } = this.#memory
    const wanted = !this.#slow && (large || bodyBuffers.givesLarge(this.#left))
    if (wanted === large) return
    this.#memory.retire()
    this.#memory = this.#make(wanted ? this.#left : smallSize)
  }

  #make(left: number): Memory {
    return new Memory(left, this.#inParts, (part) => {
      if (part !== this.#part) return
      const onFree = this.#onFree
      this.#onFree = undefined
      onFree?.()
    })
  }

  /** The first that is free, so that few go round and stay in the core's cache; else the one that will be free first. */
  #choose(): Part {
    const { parts } = this.#memory
    return parts.find(({ users }) => users === 0) ??
      parts.reduce((one, other) => other.lentAt < one.lentAt ? other : one)
  }
}
