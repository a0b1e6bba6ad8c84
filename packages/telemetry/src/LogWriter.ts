/**
 * Writes log lines to a descriptor. A log is never in the way of what it tells of: a line is handed over at once, without
 * waiting and without throwing. Where nobody reads, the disk is full or slow, or the reader is gone, lines wait in bounded
 * memory, and those that do not fit are dropped and counted.
 *
 * Pipes, sockets and terminals are written to without blocking, from the event loop. A file has no such mode: it is written
 * to on a thread of libuv's pool, one write at a time, so that a disk that hangs costs one of its threads. libuv joins its
 * threads when the process ends: such a disk also delays that.
 */
import { Context, Metric } from "effect"
import { constants, fstatSync, openSync, write, writeSync } from "node:fs"

const linesDropped = Metric.counter("spegel_log_lines_dropped_total", {
  description: "Log lines that were dropped because nobody read them, or they could not be written",
  incremental: true
})

/** Bytes that wait to be written; lines beyond it are dropped. */
const maxWaitingBytes = 1024 * 1024
/** How often a full pipe is tried again. */
const retryMillis = 50

export interface LogWriter {
  /** Takes a line with its end, or drops it. */
  readonly write: (line: string) => void
  /** Waits until all is written, for `millis` at most. */
  readonly flush: (millis: number) => Promise<void>
}

export interface LogWriterOptions {
  /** Makes the descriptor non-blocking, where it cannot be opened anew; called at most once. */
  readonly unblock?: () => void
  /** The line that says that lines were dropped, written when there is room again. */
  readonly notice: (dropped: number) => string
}

interface Target {
  readonly fd: number
  /** A write may wait for a disk. */
  readonly blocks: boolean
}

/**
 * A pipe or terminal is opened anew: the descriptor is shared with other processes, which would have to cope with a mode
 * that we set. Its owner may forbid that, a pipe without a reader and a socket cannot be opened.
 */
const targetOf = (fd: number, unblock: () => void): Target => {
  try {
    const stat = fstatSync(fd)
    if (stat.isFile()) return { fd, blocks: true }
    if (stat.isFIFO() || stat.isCharacterDevice()) {
      const { O_NOCTTY, O_NONBLOCK, O_WRONLY } = constants
      return { fd: openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK | O_NOCTTY), blocks: false }
    }
  } catch {
    // It is used as it is.
  }
  try {
    unblock()
    return { fd, blocks: fstatSync(fd).isCharacterDevice() }
  } catch {
    return { fd, blocks: true }
  }
}

const isFull = (error: NodeJS.ErrnoException): boolean => error.code === "EAGAIN" || error.code === "EINTR"

const newline = Buffer.from("\n")

const countLines = (bytes: Buffer): number => bytes.reduce((count, byte) => byte === newline[0] ? count + 1 : count, 0)

/** Writes to `fd`, which stays open: log lines may come to the very end of the process. */
export const make = (fd: number, { notice, unblock = () => {} }: LogWriterOptions): LogWriter => {
  const target = targetOf(fd, unblock)
  let waiting: Array<Buffer> = []
  /** Bytes of `waiting` and of the batch that is being written. */
  let held = 0
  let writing = false
  /** The last batch was given up within a line. */
  let torn = false
  /** Dropped lines that no notice has told of. */
  let untold = 0
  let onIdle = () => {}

  const drop = (lines: number) => {
    untold += lines
    linesDropped.updateUnsafe(lines, Context.empty())
  }
  const add = (line: string) => {
    const bytes = Buffer.from(line)
    if (held + bytes.length > maxWaitingBytes) return drop(1)
    held += bytes.length
    waiting.push(bytes)
  }

  /** Writes all that waits, then what has come meanwhile. */
  const next = (): void => {
    writing = waiting.length > 0
    if (!writing) return onIdle()
    const batch = Buffer.concat(waiting)
    waiting = []
    put(batch, 0)
  }
  const put = (batch: Buffer, from: number): void => {
    const rest = batch.subarray(from)
    // A line that was torn ends before the next one.
    const bytes = torn && from === 0 ? Buffer.concat([newline, rest]) : rest
    const extra = bytes.length - rest.length
    const done = (error: NodeJS.ErrnoException | null, count: number): void => {
      if (error === null) return written(batch, from + Math.max(0, count - extra))
      if (isFull(error)) setTimeout(() => put(batch, from), retryMillis).unref()
      else giveUp(batch, from)
    }
    if (target.blocks) return write(target.fd, bytes, done)
    let count = 0
    try {
      count = writeSync(target.fd, bytes)
    } catch (error) {
      return done(error as NodeJS.ErrnoException, 0)
    }
    done(null, count)
  }
  const written = (batch: Buffer, until: number): void => {
    torn = false
    if (until < batch.length) return put(batch, until)
    held -= batch.length
    if (untold > 0) {
      const lines = untold
      untold = 0
      add(notice(lines))
    }
    next()
  }
  const giveUp = (batch: Buffer, from: number) => {
    torn ||= from > 0 && batch[from - 1] !== newline[0]
    held -= batch.length
    drop(countLines(batch.subarray(from)))
    next()
  }

  linesDropped.updateUnsafe(0, Context.empty())
  return {
    write: (line) => {
      add(line)
      if (!writing) next()
    },
    flush: (millis) =>
      new Promise((resolve) => {
        if (!writing) return resolve()
        const timer = setTimeout(resolve, millis)
        onIdle = () => {
          clearTimeout(timer)
          resolve()
        }
      })
  }
}
