/**
 * The thread that moves bodies: one epoll, system calls that do not block, no byte in JavaScript. Commands come through a
 * port. The thread fetches them itself, because its event loop never runs.
 */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads"
import { maxUnsent } from "../../BodyBounds.ts"
import { Progress } from "../../Progress.ts"
import { FileMove } from "./FileMove.ts"
import { epoll, type Libc, load } from "./Libc.ts"
import type { Move, Tools } from "./Move.ts"
import { Pipes } from "./Pipes.ts"
import { Poll, type Watched } from "./Poll.ts"
import type { Command, Ending, Job, Report, ThreadData } from "./Protocol.ts"
import { RelayMove } from "./RelayMove.ts"

interface Running {
  readonly job: Job
  readonly move: Move
  /** When it continues without an event. */
  wakeAt: number
  /** Releases everything that it holds. */
  readonly release: () => void
}

class MoverThread {
  readonly #libc: Libc
  readonly #port: MessagePort
  readonly #poll: Poll
  readonly #pipes: Pipes
  readonly #wake: Watched
  readonly #jobs = new Map<number, Running>()
  /** Jobs by what they wait for. */
  readonly #byKey = new Map<number, Running>()
  /** Jobs that continue at a given time. */
  readonly #napping = new Set<Running>()
  #closing = false

  constructor(libc: Libc, port: MessagePort, wake: number) {
    this.#libc = libc
    this.#port = port
    this.#poll = new Poll(libc)
    this.#pipes = new Pipes(libc)
    const watched = this.#poll.watch(wake)
    if (watched === undefined) throw new Error(`epoll_ctl failed with errno ${libc.errno()}`)
    this.#wake = watched
  }

  run(): void {
    this.#report({ _tag: "Started" })
    try {
      while (!this.#closing) {
        this.#poll.arm(this.#wake, epoll.IN)
        this.#poll.wait(this.#patienceMillis(), (watched) => this.#onEvent(watched))
        this.#wakeNapping()
      }
    } finally {
      const ending: Ending = this.#closing ? { _tag: "Aborted" } : { _tag: "Failed", reason: "the mover's thread died" }
      for (const running of this.#jobs.values()) this.#end(running, ending)
      this.#pipes.close()
      this.#poll.close()
    }
  }

  #onEvent(watched: Watched): void {
    if (watched === this.#wake) return this.#hear()
    const running = this.#byKey.get(watched.key)
    if (running !== undefined) this.#step(running)
  }

  #hear(): void {
    this.#libc.drain(this.#wake.fd)
    for (;;) {
      const command = receiveMessageOnPort(this.#port)?.message as Command | undefined
      if (command === undefined) return
      if (command._tag === "Close") this.#closing = true
      else if (command._tag === "Move") this.#start(command.job)
      else {
        const running = this.#jobs.get(command.id)
        if (running !== undefined) this.#end(running, { _tag: "Aborted" })
      }
    }
  }

  #start(job: Job): void {
    const running = this.#make(job)
    if (running === undefined) return this.#tell(job, { _tag: "Refused" })
    this.#jobs.set(job.id, running)
    this.#step(running)
  }

  /** Everything that a job needs; undefined if the system refuses a part of it. */
  #make(job: Job): Running | undefined {
    const client = this.#poll.watch(job.to)
    if (client === undefined) return undefined
    this.#libc.limitUnsent(job.to, maxUnsent)
    const tools: Tools = { libc: this.#libc, poll: this.#poll, job, client, progress: new Progress(job.progress) }
    if (job.kind !== "relay") return this.#keep(tools, new FileMove(tools), [client])
    const peer = this.#poll.watch(job.from)
    const pipe = peer === undefined ? undefined : this.#pipes.acquire()
    if (peer === undefined || pipe === undefined) {
      for (const watched of [client, peer]) if (watched !== undefined) this.#poll.forget(watched)
      return undefined
    }
    const move = new RelayMove(tools, peer, pipe)
    return this.#keep(tools, move, [client, peer], () => this.#pipes.release(pipe, move.isEmpty))
  }

  #keep(
    { job, progress }: Tools,
    move: Move,
    watched: ReadonlyArray<Watched>,
    releasePipe: () => void = () => {}
  ): Running {
    const release = () => {
      progress.waitsNoMore()
      for (const one of watched) {
        this.#byKey.delete(one.key)
        this.#poll.forget(one)
      }
      releasePipe()
    }
    const running = { job, move, wakeAt: 0, release }
    for (const { key } of watched) this.#byKey.set(key, running)
    return running
  }

  #step(running: Running): void {
    this.#napping.delete(running)
    const result = running.move.step()
    if (result === "armed") return
    if ("_tag" in result) return this.#end(running, result)
    running.wakeAt = performance.now() + result.napMillis
    this.#napping.add(running)
  }

  #patienceMillis(): number {
    if (this.#napping.size === 0) return -1
    const first = Math.min(...[...this.#napping].map(({ wakeAt }) => wakeAt))
    return Math.max(0, Math.ceil(first - performance.now()))
  }

  #wakeNapping(): void {
    if (this.#napping.size === 0) return
    const now = performance.now()
    for (const running of this.#napping) if (running.wakeAt <= now) this.#step(running)
  }

  #end(running: Running, ending: Ending): void {
    this.#napping.delete(running)
    this.#jobs.delete(running.job.id)
    running.release()
    this.#tell(running.job, ending)
  }

  /** Closes the job's descriptors before it reports: afterwards the event loop may do anything with the connections. */
  #tell({ from, id, to }: Job, ending: Ending): void {
    this.#libc.close(from)
    this.#libc.close(to)
    this.#report({ _tag: "Ended", id, ending, idlePipes: this.#pipes.kept })
  }

  #report(report: Report): void {
    this.#port.postMessage(report)
  }
}

if (parentPort !== null) new MoverThread(load(), parentPort, (workerData as ThreadData).wake).run()
