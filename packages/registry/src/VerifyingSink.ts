/**
 * Bytes on their way to a client, hashed as they pass, off the event loop. The last chunk is held back until the digest
 * is known: where it is wrong the body never becomes complete, and containerd does not commit it.
 */
import * as Digest from "@spegel-ts/oci/Digest"
import { Deferred, Effect, type Scope } from "effect"
import type { DigestJob } from "./DigestThread.ts"
import * as DigestThreads from "./DigestThreads.ts"
import type { ByteSink } from "./Exchange.ts"
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
   * Puts hashing in front of `sink`. Several peers may write one after another, also while a chunk of the one before is
   * still on its way; what is hashed is let go of with the scope.
   */
  readonly sink: (expected: Expected, sink: ByteSink) => Effect.Effect<VerifyingSink, never, Scope.Scope>
}

/** Once per mirror: what hashes belongs to the scope. */
export const make: Effect.Effect<Verifier, never, Scope.Scope> = Effect.map(
  DigestThreads.make,
  (threads): Verifier => ({
    sink: Effect.fnUntraced(function*(expected, sink) {
      const job = yield* Effect.acquireRelease(
        Effect.sync(() => threads.begin(Digest.algorithm(expected.digest))),
        (job) => Effect.sync(() => job.forget())
      )
      return verifying(expected, job, sink)
    })
  })
)

/** Passes a part on, which has no digest of its own: its client verifies the whole. `start` is its first byte. */
export const passing = (start: number, sink: ByteSink): VerifyingSink => {
  let offset = start
  return {
    offset: () => offset,
    wrong: Effect.never,
    write: (chunk, resume) => {
      offset += chunk.length
      return sink.write(chunk, resume)
    }
  }
}

/** Passes a whole body on, hashed by `job`. */
export const verifying = ({ digest, size }: Expected, job: DigestJob, sink: ByteSink): VerifyingSink => {
  const wrong = Deferred.makeUnsafe<void, HashLost>()
  let offset = 0
  return {
    offset: () => offset,
    wrong: Deferred.await(wrong),
    write: (chunk, resume) => {
      offset += chunk.length
      // The chunk is done when it is hashed and taken; that may be within this call.
      let left = 2
      let within = true
      const step = () => {
        left--
        if (left === 0 && !within) resume()
      }
      const pass = () => {
        if (sink.write(chunk, step)) step()
      }
      if (offset < size) {
        job.update(chunk, step)
        pass()
      } else {
        job.update(chunk, () =>
          job.digest((hex) => {
            if (hex === undefined) Deferred.doneUnsafe(wrong, Effect.fail(new HashLost({ content: digest })))
            else if (`${Digest.algorithm(digest)}:${hex}` !== digest) Deferred.doneUnsafe(wrong, Effect.void)
            else {
              step()
              pass()
            }
          }))
      }
      within = false
      return left === 0
    }
  }
}
