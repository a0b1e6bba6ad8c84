/** The event loop's side of the mover: gives jobs to its thread, and is told how they ended. */
import type { Socket } from "node:net"
import { Worker } from "node:worker_threads"
import { descriptorOf } from "../../PeerSocket.ts"
import type { Progress } from "../../Progress.ts"
import { type Libc, load } from "./Libc.ts"
import type { Command, Ending, Job, Report, ThreadData } from "./Protocol.ts"

/** A TypeScript file in the sources; a JavaScript file beside this one in the build and in the bundle. */
const threadUrl = new URL(import.meta.url.endsWith(".ts") ? "./MoverThread.ts" : "./MoverThread.js", import.meta.url)

/** The thread has a heap of its own, and needs almost nothing of it. */
const resourceLimits = { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 16 }

/** Each job has two descriptors, and the two of a pipe if it relays. */
const maxJobs = 512

/** A job that has not ended yet. */
interface Waiting {
  readonly job: Job
  readonly onEnd: (ending: Ending) => void
}

export interface Submission extends Pick<Job, "kind" | "length" | "offset"> {
  /** A file's descriptor, or a peer's connection. */
  readonly from: number | Socket
  readonly to: Socket
  readonly progress: Progress
}

export class Mover {
  readonly #libc: Libc
  readonly #wake: number
  readonly #worker: Worker
  readonly #waiting = new Map<number, Waiting>()
  readonly #exit = Promise.withResolvers<string>()
  readonly #started = Promise.withResolvers<void>()
  #nextId = 0
  #closed = false
  #idlePipes = 0
  #completed = 0

  /** Throws if the system lacks the calls, or the thread cannot be started. */
  static async start(): Promise<Mover> {
    const mover = new Mover(load())
    await Promise.race([mover.#started.promise, mover.died.then((reason) => Promise.reject(new Error(reason)))])
    // The connections of bodies keep the process alive; the thread need not.
    mover.#worker.unref()
    return mover
  }

  private constructor(libc: Libc) {
    this.#libc = libc
    this.#wake = libc.eventfd()
    if (this.#wake === -1) throw new Error(`eventfd failed with errno ${libc.errno()}`)
    const workerData: ThreadData = { wake: this.#wake }
    this.#worker = new Worker(threadUrl, { workerData, resourceLimits, name: "mover" })
    let reason = "the mover's thread ended"
    this.#worker.on("message", (report: Report) => this.#onReport(report))
    this.#worker.on("error", (error) => reason = `the mover's thread died: ${String(error)}`)
    this.#worker.on("exit", () => this.#onExit(reason))
    process.once("exit", this.#onProcessExit)
  }

  /** Resolves when the thread is gone, to the reason. */
  get died(): Promise<string> {
    return this.#exit.promise
  }

  /** The number of jobs that moved all their bytes so far. */
  get completed(): number {
    return this.#completed
  }

  /** The number of pipes kept for the next jobs. */
  get idlePipes(): number {
    return this.#idlePipes
  }

  /**
   * Moves a body. Returns a function that aborts it, or undefined if it cannot be moved now. `onEnd` is called once, also
   * after an abort; then the mover no longer refers to the connections.
   *
   * Meanwhile Node must not write to the client, nor read from the peer. It may close both: the mover works on duplicates,
   * because the number of a closed descriptor is used again, for another connection.
   */
  submit(submission: Submission, onEnd: (ending: Ending) => void): (() => void) | undefined {
    const { from, kind, length, offset, progress, to } = submission
    if (this.#closed || this.#waiting.size >= maxJobs) return undefined
    const [source, target] = this.#duplicate([typeof from === "number" ? from : descriptorOf(from), descriptorOf(to)])
    if (source === undefined || target === undefined) return undefined
    const id = this.#nextId++
    const job: Job = { id, kind, from: source, to: target, offset, length, progress: progress.memory }
    this.#waiting.set(id, { job, onEnd })
    this.#tell({ _tag: "Move", job })
    return () => {
      if (this.#waiting.has(id)) this.#tell({ _tag: "Abort", id })
    }
  }

  /** Ends all jobs, and the thread. */
  async close(): Promise<void> {
    if (!this.#closed) this.#tell({ _tag: "Close" })
    this.#closed = true
    this.#worker.ref()
    await this.died
  }

  /** Duplicates all of them, or none. */
  #duplicate(fds: ReadonlyArray<number | undefined>): ReadonlyArray<number> {
    const duplicates: Array<number> = []
    for (const fd of fds) {
      const duplicate = fd === undefined ? -1 : this.#libc.duplicate(fd)
      if (duplicate !== -1) duplicates.push(duplicate)
    }
    if (duplicates.length === fds.length) return duplicates
    for (const fd of duplicates) this.#libc.close(fd)
    return []
  }

  /** A process that ends, for example by an exception, waits for its threads, and this one waits in a foreign call. */
  readonly #onProcessExit = (): void => this.#tell({ _tag: "Close" })

  #tell(command: Command): void {
    this.#worker.postMessage(command)
    this.#libc.signal(this.#wake)
  }

  #onReport(report: Report): void {
    if (report._tag === "Started") return this.#started.resolve()
    this.#idlePipes = report.idlePipes
    const waiting = this.#waiting.get(report.id)
    this.#waiting.delete(report.id)
    if (report.ending._tag === "Complete") this.#completed++
    waiting?.onEnd(report.ending)
  }

  /** Jobs that are left here never reached the thread, so their descriptors are still open. */
  #onExit(reason: string): void {
    process.off("exit", this.#onProcessExit)
    const ending: Ending = this.#closed ? { _tag: "Aborted" } : { _tag: "Failed", reason }
    this.#closed = true
    for (const { job, onEnd } of this.#waiting.values()) {
      this.#libc.close(job.from)
      this.#libc.close(job.to)
      onEnd(ending)
    }
    this.#waiting.clear()
    this.#libc.close(this.#wake)
    this.#exit.resolve(reason)
  }
}
