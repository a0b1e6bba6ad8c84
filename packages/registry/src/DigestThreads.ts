/**
 * Hashing beside the event loop: streams would make each other wait for their first bytes. A thread reads what is
 * hashed from shared memory of a fixed size, whatever the number of streams; one that finds it full waits.
 */
import { Effect, type Scope } from "effect"
import { availableParallelism } from "node:os"
import { Worker } from "node:worker_threads"
import type { FromWorker, ToWorker, WorkerData } from "./DigestWorker.ts"

const slotSize = 512 * 1024
const slots = 4
const maxThreads = 4

/** In the sources a TypeScript file, in the build and in the bundle a JavaScript one beside this. */
const workerUrl = new URL(import.meta.url.endsWith(".ts") ? "./DigestWorker.ts" : "./DigestWorker.js", import.meta.url)

/** One stream's hash. */
export interface DigestJob {
  /** Takes a chunk; `done` is called when it is copied and may be reused: within the call, or later. */
  readonly update: (chunk: Buffer, done: () => void) => void
  /** The hash of all that was taken, in hexadecimal; undefined where the thread has died. Once only. */
  readonly digest: (done: (hex: string | undefined) => void) => void
  /** Nobody wants the digest any more. */
  readonly forget: () => void
}

class DigestThread {
  jobs = 0
  dead = false
  readonly #memory = new SharedArrayBuffer(slotSize * slots)
  readonly #bytes = Buffer.from(this.#memory)
  readonly #free = Array.from({ length: slots }, (_, slot) => slot)
  /** What waits for memory, in order. */
  readonly #waiting: Array<() => void> = []
  readonly #digests = new Map<number, (hex: string | undefined) => void>()
  readonly #worker: Worker
  #nextJob = 0

  constructor() {
    this.#worker = new Worker(workerUrl, { workerData: { memory: this.#memory, slotSize } satisfies WorkerData })
    this.#worker.on("message", (message: FromWorker) => {
      if (message._tag === "Free") {
        this.#free.push(message.slot)
        this.#waiting.shift()?.()
      } else {
        const done = this.#digests.get(message.job)
        this.#digests.delete(message.job)
        done?.(message.hex)
      }
    })
    this.#worker.on("error", () => this.#die())
    this.#worker.on("exit", () => this.#die())
    // After the listeners: each of them would keep the process alive again.
    this.#worker.unref()
  }

  begin(algorithm: string): DigestJob {
    const job = this.#nextJob++
    let over = false
    const end = () => {
      if (over) return
      over = true
      this.jobs--
    }
    this.jobs++
    this.#tell({ _tag: "Begin", job, algorithm })
    return {
      update: (chunk, done) => this.#copy(job, chunk, 0, done),
      digest: (done) => {
        end()
        if (this.dead) return done(undefined)
        this.#digests.set(job, done)
        this.#tell({ _tag: "Digest", job })
      },
      forget: () => {
        if (!over) this.#tell({ _tag: "Forget", job })
        end()
      }
    }
  }

  terminate(): Promise<number> {
    return this.#worker.terminate()
  }

  #copy(job: number, chunk: Buffer, from: number, done: () => void): void {
    let position = from
    while (position < chunk.length && !this.dead) {
      const slot = this.#free.pop()
      if (slot === undefined) {
        this.#waiting.push(() => this.#copy(job, chunk, position, done))
        return
      }
      const length = chunk.copy(this.#bytes, slot * slotSize, position, position + slotSize)
      this.#tell({ _tag: "Update", job, slot, length })
      position += length
    }
    done()
  }

  #tell(message: ToWorker): void {
    if (!this.dead) this.#worker.postMessage(message)
  }

  #die(): void {
    if (this.dead) return
    this.dead = true
    for (const done of this.#digests.values()) done(undefined)
    this.#digests.clear()
    for (const go of this.#waiting.splice(0)) go()
  }
}

export interface DigestThreads {
  /** Hashes on the least busy thread. */
  readonly begin: (algorithm: string) => DigestJob
}

/** As many threads as cores, at most four, each started when it is first needed. */
export const make: Effect.Effect<DigestThreads, never, Scope.Scope> = Effect.gen(function*() {
  const limit = Math.min(maxThreads, availableParallelism())
  const threads: Array<DigestThread> = []
  yield* Effect.addFinalizer(() => Effect.promise(() => Promise.all(threads.map((thread) => thread.terminate()))))
  return {
    begin: (algorithm) => {
      for (let index = threads.length; index-- > 0;) if (threads[index]?.dead === true) threads.splice(index, 1)
      const [idlest] = threads.toSorted((one, other) => one.jobs - other.jobs)
      if (idlest !== undefined && (idlest.jobs === 0 || threads.length >= limit)) return idlest.begin(algorithm)
      const thread = new DigestThread()
      threads.push(thread)
      return thread.begin(algorithm)
    }
  }
})
