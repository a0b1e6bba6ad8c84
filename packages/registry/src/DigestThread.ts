/**
 * A thread that hashes beside the event loop, and the memory that it reads: a ring of fixed size, whatever the number of
 * streams. A chunk that finds it full waits, and the stream with it.
 */
import { createHash } from "node:crypto"
import { Worker } from "node:worker_threads"
import type { FromWorker, ToWorker, WorkerData } from "./DigestWorker.ts"

/** Two large chunks: one is hashed while the other is copied. */
const ringSize = 1024 * 1024
/** A thread has a heap of its own, and needs next to nothing of it. */
const resourceLimits = { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 16 }

/** In the sources a TypeScript file, in the build and in the bundle a JavaScript one beside this. */
const workerUrl = new URL(import.meta.url.endsWith(".ts") ? "./DigestWorker.ts" : "./DigestWorker.js", import.meta.url)

/** One stream's hash. */
export interface DigestJob {
  /**
   * Takes a chunk, the next of the stream even where others still wait; `done` is called when the chunk may be reused:
   * within the call, or later.
   */
  readonly update: (chunk: Uint8Array, done: () => void) => void
  /** The hash of all that was taken, in hexadecimal; undefined where it was lost with its thread. Once only. */
  readonly digest: (done: (hex: string | undefined) => void) => void
  /** Nobody wants the digest any more; nothing is called any more. */
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

/** Memory that the thread reads, until it says that it has. */
interface Update {
  readonly job: Job
  readonly start: number
  readonly length: number
}

/** A chunk of which not all is in memory yet. */
interface Waiting {
  readonly job: Job
  readonly chunk: Uint8Array
  position: number
  readonly done: () => void
}

export class DigestThread {
  readonly #memory = new SharedArrayBuffer(ringSize)
  readonly #ring = new Uint8Array(this.#memory)
  #head = 0
  #used = 0
  /** The oldest first, as are the next two. */
  readonly #updates: Array<Update> = []
  readonly #waiting: Array<Waiting> = []
  readonly #jobs = new Map<number, Job>()
  readonly #worker: Worker
  #dead = false
  #nextJob = 0

  /** `onDeath` is told once why the thread ended, and whether it ever hashed anything. */
  constructor(onDeath: (reason: string, hashed: boolean) => void) {
    let hashed = false
    this.#worker = new Worker(workerUrl, { workerData: { memory: this.#memory } satisfies WorkerData, resourceLimits })
    this.#worker.on("message", (message: FromWorker) => {
      hashed = true
      if (message._tag === "Hashed") this.#hashed()
      else this.#answer(message.job, message.hex)
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
        this.#waiting.push({ job, chunk, position: 0, done })
        this.#fill()
      },
      digest: (done) => {
        if (job.successor !== undefined) return job.successor.digest(done)
        job.onDigest = done
        this.#tell({ _tag: "Digest", job: job.id })
      },
      forget: () => {
        if (!this.#jobs.delete(job.id)) return
        for (let index = this.#waiting.length; index-- > 0;) {
          if (this.#waiting[index]?.job === job) this.#waiting.splice(index, 1)
        }
        this.#tell({ _tag: "Forget", job: job.id })
      }
    }
  }

  terminate(): Promise<number> {
    return this.#worker.terminate()
  }

  /** Copies what waits, as far as there is room. */
  #fill(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      const { chunk, done, job, position } = next
      const length = Math.min(chunk.length - position, ringSize - this.#used, ringSize - this.#head)
      if (length === 0 && position < chunk.length) return
      if (length > 0) {
        this.#ring.set(chunk.subarray(position, position + length), this.#head)
        this.#updates.push({ job, start: this.#head, length })
        this.#tell({ _tag: "Update", job: job.id, start: this.#head, length })
        this.#head = (this.#head + length) % ringSize
        this.#used += length
        next.position += length
      }
      if (next.position === chunk.length) {
        this.#waiting.shift()
        done()
      }
    }
  }

  #hashed(): void {
    const update = this.#updates.shift()
    if (update === undefined) return
    update.job.begun = true
    this.#used -= update.length
    this.#fill()
  }

  #answer(id: number, hex: string): void {
    const job = this.#jobs.get(id)
    this.#jobs.delete(id)
    job?.onDigest?.(hex)
  }

  #tell(message: ToWorker): void {
    if (!this.#dead) this.#worker.postMessage(message)
  }

  /** Jobs of which the thread hashed nothing yet go on without it: all their bytes are here. */
  #succeed(): void {
    for (const job of this.#jobs.values()) {
      const updates = this.#updates.filter((update) => update.job === job)
      job.successor = job.begun
        ? lost
        : inline(job.algorithm, updates.map(({ length, start }) => this.#ring.subarray(start, start + length)))
    }
    for (const { chunk, done, job, position } of this.#waiting.splice(0)) {
      job.successor?.update(chunk.subarray(position), done)
    }
    for (const { onDigest, successor } of this.#jobs.values()) {
      if (onDigest !== undefined) successor?.digest(onDigest)
    }
    this.#jobs.clear()
    this.#updates.length = 0
  }
}
