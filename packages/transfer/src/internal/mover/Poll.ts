/**
 * An epoll instance that reports each descriptor once, until it is armed again. So a job waits for one event at a time, and a
 * connection that breaks while no job waits for it wakes nobody (EPOLLHUP and EPOLLERR cannot be masked otherwise).
 */
import { epoll, type Libc } from "./Libc.ts"

const maxEvents = 64
const ADD = 1
const DEL = 2
const MOD = 3
/** `struct epoll_event` is packed on x86-64 only: <linux/eventpoll.h>. */
const packed = process.arch === "x64"
const eventSize = packed ? 12 : 16
const dataOffset = packed ? 4 : 8

/** A watched descriptor. */
export interface Watched {
  readonly fd: number
  readonly key: number
  /** The events that it is armed for; 0 after one came. */
  armed: number
}

export class Poll {
  readonly #libc: Libc
  readonly #fd: number
  readonly #event = Buffer.allocUnsafeSlow(eventSize)
  readonly #events = Buffer.allocUnsafeSlow(maxEvents * eventSize)
  readonly #watched = new Map<number, Watched>()
  #nextKey = 0

  constructor(libc: Libc) {
    this.#libc = libc
    this.#fd = libc.epollCreate()
    if (this.#fd === -1) throw new Error(`epoll_create1 failed with errno ${libc.errno()}`)
  }

  /** Watches a descriptor, for no event yet. Undefined if the system refuses. */
  watch(fd: number): Watched | undefined {
    // Unlike descriptors, keys are never reused: an event may belong to a job that ended in the same round.
    const watched: Watched = { fd, key: this.#nextKey++, armed: 0 }
    this.#event.writeUInt32LE(epoll.ONESHOT, 0)
    this.#event.writeBigUInt64LE(BigInt(watched.key), dataOffset)
    if (this.#libc.epollCtl(this.#fd, ADD, fd, this.#event) !== 0) return undefined
    this.#watched.set(watched.key, watched)
    return watched
  }

  /** Reports once, when one of the events occurs, or an error. */
  arm(watched: Watched, events: number): void {
    if (watched.armed === events) return
    watched.armed = events
    this.#event.writeUInt32LE(events | epoll.ONESHOT, 0)
    this.#event.writeBigUInt64LE(BigInt(watched.key), dataOffset)
    this.#libc.epollCtl(this.#fd, MOD, watched.fd, this.#event)
  }

  forget(watched: Watched): void {
    this.#watched.delete(watched.key)
    this.#libc.epollCtl(this.#fd, DEL, watched.fd, this.#event)
  }

  /** Waits at most this long, without limit for -1. Calls `tell` for each descriptor that an event occurred on. */
  wait(millis: number, tell: (watched: Watched) => void): void {
    const count = this.#libc.epollWait(this.#fd, this.#events, maxEvents, millis)
    for (let index = 0; index < count; index++) {
      const key = Number(this.#events.readBigUInt64LE(index * eventSize + dataOffset))
      const watched = this.#watched.get(key)
      if (watched === undefined) continue
      watched.armed = 0
      tell(watched)
    }
  }

  close(): void {
    this.#libc.close(this.#fd)
  }
}
