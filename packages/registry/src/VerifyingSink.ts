/**
 * Bytes on their way to a client, hashed as they pass, off the event loop. The last chunk is held back until the digest
 * is known: where it is wrong the body never becomes complete, and containerd does not commit it.
 */
import type { ByteRange } from "@spegel-ts/oci/ByteRange"
import * as Digest from "@spegel-ts/oci/Digest"
import { Deferred, Effect, type Scope } from "effect"
import type { ClientWriter } from "./BlobBody.ts"
import { BodyBuffer } from "./BodyBuffer.ts"
import { largeSize } from "./BufferPool.ts"
import type { DigestJob } from "./DigestThread.ts"
import * as DigestThreads from "./DigestThreads.ts"
import type { ByteSink } from "./Exchange.ts"
import { LoopTurns } from "./LoopTurns.ts"
import { HashLost } from "./MirrorError.ts"

/** What one body has to be. */
export interface Expected {
  readonly digest: Digest.Digest
  /** Size of the whole in bytes. */
  readonly size: number
}

export interface VerifyingSink extends ByteSink {
  /** The byte of the whole that comes next, after all that was written. */
  readonly offset: () => number
  /** Completes once the whole has turned out to be wrong, fails where that cannot be known any more; never otherwise. */
  readonly wrong: Effect.Effect<void, HashLost>
}

export interface Verifier {
  /**
   * Puts hashing in front of a client. Several peers may write one after another, also while a chunk of the one before
   * is still on its way; what is hashed, and the memory, is let go of with the scope.
   */
  readonly sink: (expected: Expected, client: ClientWriter) => Effect.Effect<VerifyingSink, never, Scope.Scope>
  /** Passes a part on, which has no digest of its own: its client verifies the whole. */
  readonly passing: (range: ByteRange, client: ClientWriter) => Effect.Effect<VerifyingSink, never, Scope.Scope>
}

/** Memory for a body, as long as the scope is open. */
const memory = (size: number, inParts: boolean) =>
  Effect.acquireRelease(
    Effect.sync(() => new BodyBuffer(size, inParts)),
    (buffer) => Effect.sync(() => buffer.close())
  )

/** Once per mirror: what hashes belongs to the scope. */
export const make: Effect.Effect<Verifier, never, Scope.Scope> = Effect.gen(function*() {
  const threads = yield* DigestThreads.make
  const turns = new LoopTurns()
  return {
    sink: Effect.fnUntraced(function*(expected, client) {
      const job = yield* Effect.acquireRelease(
        Effect.sync(() => threads.begin(Digest.algorithm(expected.digest))),
        (job) => Effect.sync(() => job.forget())
      )
      return verifying(expected, job, yield* memory(expected.size, true), client)
    }),
    passing: (range, client) =>
      Effect.map(memory(range.end - range.start, false), (buffer) => passing(range, buffer, turns, client))
  } satisfies Verifier
})

/**
 * Bytes that a part may move before it waits for another turn of the event loop, where peer and client are so fast that it
 * never waits for them. Fewer make others wait less; while other parts wait, whose bytes push its own out of the core's
 * cache, they cost more a byte.
 */
const turnBytes = 2 * largeSize
const crowdedTurnBytes = 12 * largeSize

/** Passes a part on. */
const passing = ({ start }: ByteRange, buffer: BodyBuffer, turns: LoopTurns, client: ClientWriter): VerifyingSink => {
  let offset = start
  let inTurn = 0
  return {
    offset: () => offset,
    wrong: Effect.never,
    space: () => buffer.space,
    write: (chunk, resume) => {
      offset += chunk.length
      const giveBack = buffer.lend(chunk, 1)
      const taken = client(chunk, (taken) => {
        giveBack()
        if (!taken) return
        buffer.waited()
        resume()
      })
      if (!taken) return false
      giveBack()
      inTurn += chunk.length
      if (inTurn < (turns.crowded ? crowdedTurnBytes : turnBytes)) return true
      inTurn = 0
      turns.wait(resume)
      return false
    }
  }
}

/** Passes a whole body on, hashed by `job`. */
export const verifying = (
  { digest, size }: Expected,
  job: DigestJob,
  buffer: BodyBuffer,
  client: ClientWriter
): VerifyingSink => {
  const wrong = Deferred.makeUnsafe<void, HashLost>()
  let offset = 0
  return {
    offset: () => offset,
    wrong: Deferred.await(wrong),
    space: () => buffer.space,
    write: (chunk, resume) => {
      offset += chunk.length
      // The next is read to memory that is free by now.
      job.settle()
      const giveBack = buffer.lend(chunk, 2)
      // While a chunk is hashed the next is read, where there is memory for it.
      const goOn = () => {
        job.settle()
        if (buffer.free) return resume()
        buffer.whenFree(resume)
        job.watch(() => buffer.free)
      }
      const pass = () => {
        const taken = client(chunk, (taken) => {
          giveBack()
          if (!taken) return
          buffer.waited()
          goOn()
        })
        if (!taken) return
        giveBack()
        // Others have their turn before.
        setImmediate(goOn)
      }
      job.update(chunk, giveBack)
      if (offset < size) pass()
      else {
        job.digest((hex) => {
          if (hex === undefined) Deferred.doneUnsafe(wrong, Effect.fail(new HashLost({ content: digest })))
          else if (`${Digest.algorithm(digest)}:${hex}` !== digest) Deferred.doneUnsafe(wrong, Effect.void)
          else pass()
        })
      }
      return false
    }
  }
}
