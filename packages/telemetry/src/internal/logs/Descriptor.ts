/**
 * Writes to a file descriptor without ever waiting in the calling thread.
 *
 * Pipes, sockets and terminals are written to without blocking, from the event loop. A regular file has no such mode: it is
 * written to on a thread of libuv's pool, so a disk that hangs costs one of its threads. libuv joins its threads when the
 * process ends, so such a disk also delays the exit.
 */
import { constants, fstatSync, openSync, write, writeSync } from "node:fs"

/** `count` is how many bytes were written, which may be fewer than were given. */
type Done = (error: NodeJS.ErrnoException | null, count: number) => void

/** Writes `bytes`, and calls `done` once: at once if the descriptor does not block, later if it does. */
export type Descriptor = (bytes: Buffer, done: Done) => void

const blocking = (fd: number): Descriptor => (bytes, done) => write(fd, bytes, (error, count) => done(error, count))

const nonBlocking = (fd: number): Descriptor => (bytes, done) => {
  let count = 0
  try {
    count = writeSync(fd, bytes)
  } catch (error) {
    return done(error as NodeJS.ErrnoException, 0)
  }
  done(null, count)
}

/**
 * A pipe or terminal is opened anew, since the descriptor's mode is shared with other processes. Its owner may forbid that,
 * and a socket or a pipe without a reader cannot be opened: then `unblock` is called to make `fd` itself non-blocking.
 */
export const open = (fd: number, unblock: () => void): Descriptor => {
  try {
    const stat = fstatSync(fd)
    if (stat.isFile()) return blocking(fd)
    if (stat.isFIFO() || stat.isCharacterDevice()) {
      const { O_NOCTTY, O_NONBLOCK, O_WRONLY } = constants
      return nonBlocking(openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK | O_NOCTTY))
    }
  } catch {
    // `fd` is used as it is.
  }
  try {
    unblock()
    return fstatSync(fd).isCharacterDevice() ? blocking(fd) : nonBlocking(fd)
  } catch {
    return blocking(fd)
  }
}
