/**
 * Moves a peer's bytes to a client by splice(2) through a pipe. It never takes more from the peer than is due: the bytes that
 * follow the body belong to the next response, or to none.
 */
import { maxInPipe, maxUnread } from "../../BodyBounds.ts"
import { epoll, errno } from "./Libc.ts"
import { endOfClient, isTransient, type Move, type Tools, turnBytes, waitForRoom, type Waits } from "./Move.ts"
import type { Pipe } from "./Pipes.ts"
import type { Watched } from "./Poll.ts"
import type { Ending } from "./Protocol.ts"

export class RelayMove implements Move {
  readonly #tools: Tools
  readonly #peer: Watched
  readonly #pipe: Pipe
  #taken = 0
  #moved = 0
  /** Why the peer gives no more. The client still gets what is in the pipe. */
  #ended: string | undefined

  constructor(tools: Tools, peer: Watched, pipe: Pipe) {
    this.#tools = tools
    this.#peer = peer
    this.#pipe = pipe
    tools.libc.limitUnread(tools.job.from, maxUnread)
  }

  /** True if the pipe may be used for another body. */
  get isEmpty(): boolean {
    return this.#taken === this.#moved
  }

  step(): Ending | Waits {
    for (let turn = turnBytes; turn > 0;) {
      const filled = this.#fill()
      if (typeof filled === "object") return filled
      const sent = this.#drain()
      if (typeof sent === "object") return sent
      if (this.#moved === this.#tools.job.length) return { _tag: "Complete", source: this.#lookBehind() }
      if (!this.isEmpty) {
        if (sent === 0) return waitForRoom(this.#tools)
      } else if (this.#ended !== undefined) return { _tag: "SourceEnded", reason: this.#ended }
      else if (filled === 0) return this.#waitForPeer()
      turn -= sent
    }
    return waitForRoom(this.#tools)
  }

  /** Moves bytes from the peer into the pipe; 0 if there are none now, or no room for them. */
  #fill(): number | Ending {
    const most = Math.min(this.#tools.job.length - this.#taken, maxInPipe - (this.#taken - this.#moved))
    if (most <= 0 || this.#ended !== undefined) return 0
    const count = this.#tools.libc.splice(this.#tools.job.from, this.#pipe.write, most)
    if (count > 0) {
      this.#taken += count
      this.#tools.progress.take(count)
      return count
    }
    if (count === 0) this.#ended = "the peer closed the connection"
    else {
      const code = this.#tools.libc.errno()
      if (code === errno.EINVAL && this.#taken === 0) return { _tag: "Refused" }
      if (!isTransient(code)) this.#ended = `the connection to the peer broke (errno ${code})`
    }
    return 0
  }

  /** Moves bytes from the pipe to the client; 0 if it takes none now. */
  #drain(): number | Ending {
    if (this.isEmpty) return 0
    const count = this.#tools.libc.splice(this.#pipe.read, this.#tools.job.to, this.#taken - this.#moved)
    if (count > 0) {
      this.#moved += count
      this.#tools.progress.move(count)
      return count
    }
    if (count === 0) return 0
    const code = this.#tools.libc.errno()
    return isTransient(code) ? 0 : endOfClient(code)
  }

  #waitForPeer(): Waits {
    this.#tools.progress.waits()
    this.#tools.poll.arm(this.#peer, epoll.IN)
    return "armed"
  }

  #lookBehind(): "quiet" | "closed" | "sent more" {
    const next = this.#tools.libc.peek(this.#tools.job.from)
    return next > 0 ? "sent more" : next < 0 && isTransient(this.#tools.libc.errno()) ? "quiet" : "closed"
  }
}
