/** Threads that hash beside the event loop, on which streams would make each other wait for their first bytes. */
import { Effect, type Scope } from "effect"
import { availableParallelism } from "node:os"
import { type DigestJob, DigestThread, inline } from "./DigestThread.ts"

const maxThreads = 4

export interface DigestThreads {
  /** Hashes on the least busy thread; on the event loop where threads do not work. */
  readonly begin: (algorithm: string) => DigestJob
}

/**
 * A thread for each core but the event loop's, at least one and at most four, each started when it is first needed: one
 * core hashes more than the event loop moves, and a thread has some 14 MiB of its own.
 */
export const make: Effect.Effect<DigestThreads, never, Scope.Scope> = Effect.gen(function*() {
  const runFork = Effect.runForkWith(yield* Effect.context())
  const limit = Math.min(maxThreads, Math.max(1, availableParallelism() - 1))
  const threads = new Set<DigestThread>()
  let closed = false
  let usable = true

  const start = (): DigestThread => {
    const thread = new DigestThread((reason, hashed) => {
      threads.delete(thread)
      if (closed) return
      // One that never hashed anything would not do so the next time either.
      usable &&= hashed
      runFork(Effect.logWarning(
        `a hashing thread ended (${reason}): ${hashed ? "another takes its place" : "hashing goes on beside requests"}`
      ))
    })
    threads.add(thread)
    return thread
  }
  yield* Effect.addFinalizer(() =>
    Effect.promise(() => {
      closed = true
      return Promise.all([...threads].map((thread) => thread.terminate()))
    })
  )
  return {
    begin: (algorithm) => {
      if (!usable || closed) return inline(algorithm)
      const [idlest] = [...threads].toSorted((one, other) => one.jobs - other.jobs)
      return (idlest !== undefined && (idlest.jobs === 0 || threads.size >= limit) ? idlest : start()).begin(algorithm)
    }
  }
})
