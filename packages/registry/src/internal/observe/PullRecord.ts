/** The record of a request for content so far. The steps of the request write it; the log reads it when the request ends. */
import type { Progress } from "@spegel-ts/transfer/Progress"
import { type Attempt, failuresOf } from "../../PullLog.ts"

/** The number of attempts kept for one request. */
const maxAttempts = 32

/** An attempt under way. */
export type AttemptEntry = { -readonly [K in keyof Attempt]: Attempt[K] }

export class PullRecord {
  peersSeen = 0
  peersFailed = 0
  /** When the head of the answer was ready, as `MonotonicTime.millis` has it. */
  headTime: number | undefined
  /** The id of the peer that sent the last bytes. */
  source: string | undefined
  /** The size of the body that is to be sent, in bytes; undefined before the head of the answer is ready. */
  size: number | undefined
  /** The wait for another node's download; undefined while there is none. */
  waiting: { readonly source: string | undefined } | undefined
  /** The body's, while it moves in chunks. */
  progress: Progress | undefined
  /** The port of this node's end of the connection that the body comes on. */
  receivingPort: number | undefined
  readonly attempts: Array<AttemptEntry> = []

  /** Body bytes that the client's socket has taken so far. */
  get bytesTaken(): number {
    return this.progress?.moved ?? 0
  }

  /** Begins an attempt; the caller updates the entry as it goes on. */
  begin(attempt: Attempt): AttemptEntry {
    const entry = { ...attempt }
    if (this.attempts.length < maxAttempts) this.attempts.push(entry)
    return entry
  }

  /** The peers that did not serve, and why. */
  get failures(): ReadonlyArray<string> {
    return failuresOf(this.attempts)
  }
}
