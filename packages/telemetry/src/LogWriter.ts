/**
 * Writes log lines to a file descriptor. Logging never delays or breaks the program: a line is accepted at once, without
 * waiting and without throwing. If nobody reads, the disk is full or slow, or the reader is gone, lines wait in bounded
 * memory; those that do not fit are dropped and counted.
 */
import { Context, Metric } from "effect"
import * as Descriptor from "./internal/logs/Descriptor.ts"

const linesDropped = Metric.counter("spegel_log_lines_dropped_total", {
  description: "Log lines that were dropped because nobody read them, or they could not be written",
  incremental: true
})

/** Bytes that may wait to be written; lines beyond that are dropped. */
const maxWaitingBytes = 1024 * 1024
/** Pause before a full pipe is tried again. */
const retryMillis = 50

/** Takes log lines for one file descriptor. */
export interface LogWriter {
  /** Accepts a line, its newline included, or drops it. Never throws. */
  readonly write: (line: string) => void
  /** Resolves when everything is written, or after `millis`. Never rejects. */
  readonly flush: (millis: number) => Promise<void>
}

/** The parts of a writer that depend on the program: the text about dropped lines, and how to unblock the descriptor. */
export interface LogWriterOptions {
  /** Makes the descriptor non-blocking if it cannot be reopened; called at most once. */
  readonly unblock?: () => void
  /** The line, newline included, that reports dropped lines. It is written when there is room again. */
  readonly notice: (dropped: number) => string
}

const isFull = (error: NodeJS.ErrnoException): boolean => error.code === "EAGAIN" || error.code === "EINTR"

const newline = Buffer.from("\n")

const countLines = (bytes: Buffer): number => bytes.reduce((count, byte) => byte === newline[0] ? count + 1 : count, 0)

/** Writes to `fd`, which stays open: log lines may come until the very end of the process. */
export const make = (fd: number, { notice, unblock = () => {} }: LogWriterOptions): LogWriter => {
  const descriptor = Descriptor.open(fd, unblock)
  let waiting: Array<Buffer> = []
  /** Bytes of `waiting` and of the batch that is being written. */
  let held = 0
  let writing = false
  /** The last batch was given up within a line. */
  let torn = false
  /** Dropped lines that no notice has reported yet. */
  let unreported = 0
  let onIdle = () => {}

  const drop = (lines: number) => {
    unreported += lines
    linesDropped.updateUnsafe(lines, Context.empty())
  }
  const add = (line: string) => {
    const bytes = Buffer.from(line)
    if (held + bytes.length > maxWaitingBytes) return drop(1)
    held += bytes.length
    waiting.push(bytes)
  }

  /** Writes everything that waits, then what has come meanwhile. */
  const next = (): void => {
    writing = waiting.length > 0
    if (!writing) return onIdle()
    const batch = Buffer.concat(waiting)
    waiting = []
    put(batch, 0)
  }
  const put = (batch: Buffer, from: number): void => {
    const rest = batch.subarray(from)
    // A torn line is ended before the next one begins.
    const bytes = torn && from === 0 ? Buffer.concat([newline, rest]) : rest
    const extra = bytes.length - rest.length
    descriptor(bytes, (error, count) => {
      if (error === null) written(batch, from + Math.max(0, count - extra))
      else if (isFull(error)) setTimeout(() => put(batch, from), retryMillis).unref()
      else giveUp(batch, from)
    })
  }
  const written = (batch: Buffer, until: number): void => {
    torn = false
    if (until < batch.length) return put(batch, until)
    held -= batch.length
    if (unreported > 0) {
      const lines = unreported
      unreported = 0
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
