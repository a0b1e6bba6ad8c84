/**
 * A thread that hashes beside the event loop. It reads chunks where they are, if their memory is shared; others are copied
 * to it. How much waits for it is bounded by the memory of the bodies.
 */
import { createHash } from "node:crypto"
import { Worker } from "node:worker_threads"
import type { FromWorker, ToWorker } from "./DigestWorker.ts"

/** A thread has a heap of its own, and needs next to nothing of it. */
const resourceLimits = { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 16 }

/** In the sources a TypeScript file, in the build and in the bundle a JavaScript one beside this. */
const workerUrl = new URL(import.meta.url.endsWith(".ts") ? "./DigestWorker.ts" : "./DigestWorker.js", import.meta.url)

/** One stream's hash. */
export interface DigestJob {
  /** Takes a chunk, the next of the stream; `done` is called when it may be overwritten: within the call, or later. */
  readonly update: (chunk: Uint8Array, done: () => void) => void
  /** The hash of all that was taken, in hexadecimal; undefined where it was lost with its thread. Once only. */
  readonly digest: (done: (hex: string | undefined) => void) => void
  /** Nobody wants the digest any more. */
  readonly forget: () => void
}

/** Hashes on the event loop, what `taken` gives first. */
export const inline = (algorithm: string, taken: Iterable<Uint8Array> = []): DigestJob => {
  const hash = createHash(algorithm)
  for (const bytes of taken) hash.update(bytes)
  return {
    update: (chunk, done) => {
      hash.update(chunk)
      done()
    },
    digest: (done) => done(hash.digest("hex")),
    forget: () => {}
  }
}

/** What hashed some of the bytes is gone, and what it knew with it. */
const lost: DigestJob = { update: (_chunk, done) => done(), digest: (done) => done(undefined), forget: () => {} }

interface Job {
  readonly id: number
  readonly algorithm: string
  /** Whether the thread has hashed any of it, and so knows what nobody else does. */
  begun: boolean
  /** Who goes on when the thread has died. */
  successor: DigestJob | undefined
  onDigest: ((hex: string | undefined) => void) | undefined
}

/** A chunk that the thread reads, until it says that it has. */
interface Update {
  readonly job: Job
  readonly chunk: Uint8Array
  readonly done: () => void
}

export class DigestThread {
  /** The oldest first. */
  readonly #updates: Array<Update> = []
  readonly #jobs = new Map<number, Job>()
  readonly #worker: Worker
  readonly #untold: Array<ToWorker> = []
  #dead = false
  #nextJob = 0

  /** `onDeath` is told once why the thread ended, and whether it ever hashed anything. */
  constructor(onDeath: (reason: string, hashed: boolean) => void) {
    let hashed = false
    this.#worker = new Worker(workerUrl, { resourceLimits })
    this.#worker.on("message", (messages: ReadonlyArray<FromWorker>) => {
      hashed = true
      for (const message of messages) {
        if (message._tag === "Hashed") this.#hashed()
        else this.#answer(message.job, message.hex)
      }
    })
    const die = (reason: string) => {
      if (this.#dead) return
      this.#dead = true
      onDeath(reason, hashed)
      this.#succeed()
    }
    this.#worker.on("error", (error) => die(error instanceof Error ? error.message : String(error)))
    this.#worker.on("exit", (code) => die(`exit code ${code}`))
    // After the listeners: each of them would keep the process alive again.
    this.#worker.unref()
  }

  /** Streams that are being hashed. */
  get jobs(): number {
    return this.#jobs.size
  }

  begin(algorithm: string): DigestJob {
    const job: Job = { id: this.#nextJob++, algorithm, begun: false, successor: undefined, onDigest: undefined }
    this.#jobs.set(job.id, job)
    this.#tell({ _tag: "Begin", job: job.id, algorithm })
    return {
      update: (chunk, done) => {
        if (job.successor !== undefined) return job.successor.update(chunk, done)
        this.#updates.push({ job, chunk, done })
        this.#tell({ _tag: "Update", job: job.id, chunk })
      },
      digest: (done) => {
        if (job.successor !== undefined) return job.successor.digest(done)
        job.onDigest = done
        this.#tell({ _tag: "Digest", job: job.id })
      },
      forget: () => {
        if (this.#jobs.delete(job.id)) this.#tell({ _tag: "Forget", job: job.id })
      }
    }
  }

  terminate(): Promise<number> {
    return this.#worker.terminate()
  }

  #hashed(): void {
    const update = this.#updates.shift()
    if (update === undefined) return
    update.job.begun = true
    update.done()
  }

  #answer(id: number, hex: string): void {
    const job = this.#jobs.get(id)
    this.#jobs.delete(id)
    job?.onDigest?.(hex)
  }

  /** To wake a thread costs as much as to hash a small chunk: what a turn of the event loop brought is told at its end. */
  #tell(message: ToWorker): void {
    if (this.#untold.push(message) > 1) return
    setImmediate(() => {
      const messages = this.#untold.splice(0)
      if (!this.#dead) this.#worker.postMessage(messages)
    })
  }

  /** Jobs of which the thread hashed nothing yet go on without it: all their bytes are here. */
  #succeed(): void {
    const updates = this.#updates.splice(0)
    for (const job of this.#jobs.values()) {
      const taken = updates.filter((update) => update.job === job).map(({ chunk }) => chunk)
      job.successor = job.begun ? lost : inline(job.algorithm, taken)
      if (job.onDigest !== undefined) job.successor.digest(job.onDigest)
    }
    this.#jobs.clear()
    for (const { done } of updates) done()
  }
}
