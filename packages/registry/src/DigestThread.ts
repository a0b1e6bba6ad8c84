/**
 * A thread that hashes beside the event loop. It reads chunks where they are, if their memory is shared; others are copied
 * to it. How much waits for it is bounded by the memory of the bodies.
 */
import { createHash } from "node:crypto"
import { Worker } from "node:worker_threads"
import { byMessage, type Command, DigestRing } from "./DigestRing.ts"
import type { FromWorker, ToWorker } from "./DigestWorker.ts"

/** A thread has a heap of its own, and needs next to nothing of it. */
const resourceLimits = { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 16 }

/** In the sources a TypeScript file, in the build and in the bundle a JavaScript one beside this. */
const workerUrl = new URL(import.meta.url.endsWith(".ts") ? "./DigestWorker.ts" : "./DigestWorker.js", import.meta.url)

/** One stream's hash. */
export interface DigestJob {
  /**
   * Takes a chunk, the next of the stream. `done` is called when it may be overwritten: within this call or a later one,
   * or by itself where `watch` was called, before the digest is told, and after `forget`.
   */
  readonly update: (chunk: Uint8Array, done: () => void) => void
  /** Calls `done` of chunks that may be overwritten by now. */
  readonly settle: () => void
  /** Has `done` called as soon as chunks may be overwritten, until that is `enough`: for who can do nothing before. */
  readonly watch: (enough: () => boolean) => void
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
    settle: () => {},
    watch: () => {},
    digest: (done) => done(hash.digest("hex")),
    forget: () => {}
  }
}

/** What hashed some of the bytes is gone, and what it knew with it. */
const lost: DigestJob = {
  update: (_chunk, done) => done(),
  settle: () => {},
  watch: () => {},
  digest: (done) => done(undefined),
  forget: () => {}
}

interface Job {
  readonly id: number
  readonly algorithm: string
  /** Whether the thread has hashed any of it, and so knows what nobody else does. */
  begun: boolean
  /** Who goes on when the thread has died. */
  successor: DigestJob | undefined
  onDigest: ((hex: string | undefined) => void) | undefined
}

/** A chunk that the thread reads, until it has taken the command. */
interface Update {
  readonly job: Job
  readonly chunk: Uint8Array
  readonly done: () => void
}

export class DigestThread {
  readonly #ring = new DigestRing()
  readonly #worker: Worker
  readonly #jobs = new Map<number, Job>()
  /** The numbers by which the thread knows shared memory. */
  readonly #memories = new Map<SharedArrayBuffer, number>()
  /** What was told, the oldest first, until the thread has taken it: updates, and other commands. */
  readonly #told: Array<Update | undefined> = []
  #taken = 0
  #hashed = false
  /** Commands that the ring has no room for yet. */
  readonly #untold: Array<Command> = []
  /** What those wait for who can do nothing before. */
  readonly #watched = new Set<() => boolean>()
  #dead = false
  #nextJob = 0

  /** `onDeath` is told once why the thread ended, and whether it ever hashed anything. */
  constructor(onDeath: (reason: string, hashed: boolean) => void) {
    this.#worker = new Worker(workerUrl, { resourceLimits, workerData: this.#ring.shared })
    this.#worker.on("message", (message: FromWorker) => {
      this.#watch()
      if (message._tag === "Digest") this.#answer(message.job, message.hex)
    })
    const die = (reason: string) => {
      if (this.#dead) return
      this.#dead = true
      this.#settle()
      onDeath(reason, this.#hashed)
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
    this.#send({ _tag: "Begin", job: job.id, algorithm })
    return {
      update: (chunk, done) => {
        if (job.successor !== undefined) return job.successor.update(chunk, done)
        const update = { job, chunk, done }
        const { buffer } = chunk
        if (buffer instanceof SharedArrayBuffer) {
          const memory = this.#memory(buffer)
          this.#tell({ job: job.id, memory, offset: chunk.byteOffset, length: chunk.length }, update)
        } else this.#send({ _tag: "Chunk", job: job.id, chunk }, update)
      },
      settle: () => this.#settle(),
      watch: (enough) => {
        this.#watched.add(enough)
        this.#watch()
      },
      digest: (done) => {
        if (job.successor !== undefined) return job.successor.digest(done)
        job.onDigest = done
        this.#send({ _tag: "Digest", job: job.id })
      },
      forget: () => {
        if (this.#jobs.delete(job.id)) this.#send({ _tag: "Forget", job: job.id })
      }
    }
  }

  terminate(): Promise<number> {
    return this.#worker.terminate()
  }

  #memory(shared: SharedArrayBuffer): number {
    const known = this.#memories.get(shared)
    if (known !== undefined) return known
    const memory = this.#memories.size
    this.#memories.set(shared, memory)
    this.#send({ _tag: "Memory", memory: shared })
    return memory
  }

  #send(toWorker: ToWorker, update?: Update): void {
    this.#worker.postMessage(toWorker)
    this.#tell({ job: 0, memory: byMessage, offset: 0, length: 0 }, update)
  }

  #tell(command: Command, update: Update | undefined): void {
    this.#told.push(update)
    if (this.#untold.length === 0 && this.#ring.offer(command)) return
    this.#untold.push(command)
    this.#watch()
  }

  #flush(): void {
    const offered = this.#untold.findIndex((command) => !this.#ring.offer(command))
    this.#untold.splice(0, offered === -1 ? this.#untold.length : offered)
  }

  /** Calls `done` of what the thread has taken; who is called may tell it more. */
  #settle(): void {
    while (this.#taken !== this.#ring.taken) {
      this.#taken = (this.#taken + 1) | 0
      const update = this.#told.shift()
      if (update === undefined) continue
      this.#hashed = true
      update.job.begun = true
      update.done()
    }
    if (this.#untold.length > 0) this.#flush()
  }

  /** Settles, and is told again by the thread as long as anybody waits. */
  #watch(): void {
    this.#settle()
    for (const enough of this.#watched) if (enough()) this.#watched.delete(enough)
    if (this.#told.length === 0 || this.#watched.size + this.#untold.length === 0) return
    this.#ring.watch()
    // What was taken before the thread could see that it is watched.
    this.#settle()
  }

  #answer(id: number, hex: string): void {
    const job = this.#jobs.get(id)
    this.#jobs.delete(id)
    job?.onDigest?.(hex)
  }

  /** Jobs of which the thread hashed nothing yet go on without it: all their bytes are here. */
  #succeed(): void {
    this.#untold.length = 0
    this.#watched.clear()
    const updates = this.#told.splice(0).filter((told) => told !== undefined)
    for (const job of this.#jobs.values()) {
      const taken = updates.filter((update) => update.job === job).map(({ chunk }) => chunk)
      job.successor = job.begun ? lost : inline(job.algorithm, taken)
      if (job.onDigest !== undefined) job.successor.digest(job.onDigest)
    }
    this.#jobs.clear()
    for (const { done } of updates) done()
  }
}
