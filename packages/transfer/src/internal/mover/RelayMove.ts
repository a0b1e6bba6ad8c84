/**
 * A peer's bytes to a client, by splice(2) through a pipe. Never more is taken from the peer than is due: what follows the
 * body is the next answer's, or a lie.
 */
import type { Progress } from "../../Progress.ts"
import { epoll, errno, type Libc } from "./Libc.ts"
import { type ClientEnd, isTransient, type Move, progressOf, type Tools, turnBytes, type Waits } from "./Move.ts"
import type { Pipe } from "./Pipes.ts"
import type { Poll, Watched } from "./Poll.ts"
import type { Ending, Job } from "./Protocol.ts"

/** A pipe counts fragments of packets, of up to 32 KiB each; this bounds their bytes. */
const maxInPipe = 512 * 1024

export class RelayMove implements Move {
  readonly #libc: Libc
  readonly #poll: Poll
  readonly #job: Job
  readonly #peer: Watched
  readonly #client: ClientEnd
  readonly #pipe: Pipe
  readonly #progress: Progress
  #taken = 0
  #moved = 0
  /** Why the peer gives no more. The client gets what is in the pipe first. */
  #ended: string | undefined

  constructor({ job, libc, poll }: Tools, client: ClientEnd, peer: Watched, pipe: Pipe) {
    this.#libc = libc
    this.#poll = poll
    this.#job = job
    this.#client = client
    this.#peer = peer
    this.#pipe = pipe
    this.#progress = progressOf(job)
  }

  /** Whether the pipe may be used for another body. */
  get isEmpty(): boolean {
    return this.#taken === this.#moved
  }

  step(): Ending | Waits {
    for (let turn = turnBytes; turn > 0;) {
      const filled = this.#fill()
      if (typeof filled === "object") return filled
      const sent = this.#drain()
      if (typeof sent === "object") return sent
      if (this.#moved === this.#job.length) return { _tag: "Complete", source: this.#lookBehind() }
      if (!this.isEmpty) {
        if (sent === 0) return this.#client.waitForRoom()
      } else if (this.#ended !== undefined) return { _tag: "SourceEnded", reason: this.#ended }
      else if (filled === 0) return this.#waitForPeer()
      turn -= sent
    }
    return this.#client.waitForRoom()
  }

  close(): void {
    this.#progress.waitsNoMore()
  }

  /** Bytes from the peer into the pipe; 0 where there are none now, or no room for them. */
  #fill(): number | Ending {
    const most = Math.min(this.#job.length - this.#taken, maxInPipe - (this.#taken - this.#moved))
    if (most <= 0 || this.#ended !== undefined) return 0
    const count = this.#libc.splice(this.#job.from, this.#pipe.write, most)
    if (count > 0) {
      this.#taken += count
      this.#progress.take(count)
      return count
    }
    if (count === 0) this.#ended = "the peer closed the connection"
    else {
      const code = this.#libc.errno()
      if (code === errno.EINVAL && this.#taken === 0) return { _tag: "Refused" }
      if (!isTransient(code)) this.#ended = `the connection to the peer broke (errno ${code})`
    }
    return 0
  }

  /** Bytes from the pipe to the client; 0 where it takes none now. */
  #drain(): number | Ending {
    if (this.isEmpty) return 0
    const count = this.#libc.splice(this.#pipe.read, this.#job.to, this.#taken - this.#moved)
    if (count > 0) {
      this.#moved += count
      this.#progress.move(count)
      return count
    }
    return count < 0 && !isTransient(this.#libc.errno()) ? { _tag: "ClientGone" } : 0
  }

  #waitForPeer(): Waits {
    this.#progress.waits()
    this.#client.watchForEnd()
    this.#poll.arm(this.#peer, epoll.IN)
    return "armed"
  }

  #lookBehind(): "quiet" | "closed" | "sent more" {
    const next = this.#libc.peek(this.#job.from)
    return next > 0 ? "sent more" : next < 0 && isTransient(this.#libc.errno()) ? "quiet" : "closed"
  }
}
