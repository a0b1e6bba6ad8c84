/**
 * Bytes on their way to a client, hashed as they pass. The last chunk is held back until the digest is known: where it
 * is wrong the body never becomes complete, and containerd does not commit it.
 */
import * as Digest from "@spegel-ts/oci/Digest"
import { Deferred, Effect, type Scope } from "effect"
import { createHash } from "node:crypto"
import type { DigestJob } from "./DigestThreads.ts"
import type { ByteSink } from "./Exchange.ts"

/** What one body has to be. */
export interface Expected {
  readonly digest: Digest.Digest
  /** Size of the whole in bytes. */
  readonly size: number
  /** Offset of the first byte that passes. A part from beyond 0 cannot be hashed: it passes unverified. */
  readonly start: number
}

export interface VerifyingSink extends ByteSink {
  /** The byte of the whole that comes next, after all that was written. */
  readonly offset: () => number
  /** Completes once the whole has turned out to be wrong; never otherwise. */
  readonly wrong: Effect.Effect<void>
}

export interface Verifier {
  /**
   * Puts hashing in front of `sink`. Several peers may write one after another, also while a chunk of the one before is
   * still on its way; what is hashed is let go of with the scope.
   */
  readonly sink: (expected: Expected, sink: ByteSink) => Effect.Effect<VerifyingSink, never, Scope.Scope>
}

/** Once per mirror: what hashes belongs to the scope. */
export const make: Effect.Effect<Verifier, never, Scope.Scope> = Effect.succeed({
  sink: Effect.fnUntraced(function*(expected, sink) {
    const wrong = yield* Deferred.make<void>()
    const job = yield* Effect.acquireRelease(
      Effect.sync(() => inline(Digest.algorithm(expected.digest))),
      (job) => Effect.sync(() => job.forget())
    )
    return hashing(expected, job, sink, wrong)
  })
})

const hashing = (
  { digest, size, start }: Expected,
  job: DigestJob,
  sink: ByteSink,
  wrong: Deferred.Deferred<void>
): VerifyingSink => {
  let offset = start
  return {
    offset: () => offset,
    wrong: Deferred.await(wrong),
    write: (chunk, resume) => {
      offset += chunk.length
      if (start > 0) return sink.write(chunk, resume)
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
            // A thread that has died knows no digest: then the client, which hashes for itself, decides.
            if (hex !== undefined && `${Digest.algorithm(digest)}:${hex}` !== digest) {
              Deferred.doneUnsafe(wrong, Effect.void)
              return
            }
            step()
            pass()
          }))
      }
      within = false
      return left === 0
    }
  }
}

/** Hashes on the event loop. */
const inline = (algorithm: string): DigestJob => {
  const hash = createHash(algorithm)
  return {
    update: (chunk, done) => {
      hash.update(chunk)
      done()
    },
    digest: (done) => done(hash.digest("hex")),
    forget: () => {}
  }
}
