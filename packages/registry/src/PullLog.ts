/** What each request for content came to: who was asked, who served it, how much, how fast, and why not. In memory. */
import type { Progress } from "@spegel-ts/transfer/Progress"
import { Context, Effect, Layer, PubSub, Stream } from "effect"
import * as Outcome from "./Outcome.ts"

/** One peer that was asked, or was not for a reason. */
export interface Attempt {
  /** The peer's id. */
  readonly peer: string
  readonly address: string
  /** Byte of the whole from which it was asked. */
  readonly start: number
  /** Whether it was asked because another one's first byte was late. */
  readonly hedge: boolean
  /** Milliseconds from asking to its first byte; undefined where none came. */
  readonly firstByteMillis: number | undefined
  /** Body bytes taken from it. */
  readonly bytes: number
  readonly outcome: Outcome.Outcome
}

/** One finished request. */
export interface PullEvent {
  /** Milliseconds since the epoch at which the request came. */
  readonly time: number
  readonly method: "GET" | "HEAD"
  /** Whether a peer asked, for a client of its own. */
  readonly mirrored: boolean
  readonly registry: string
  /** The digest, or `registry/repository:tag`. */
  readonly content: string
  /** The `Range` header. */
  readonly range: string | undefined
  /** `local`, the id of the peer that served last, or `none`. */
  readonly source: string
  /** HTTP status; 0 where the client or the source went away in the body. */
  readonly status: number
  /** Body bytes that were to be sent. */
  readonly bytes: number
  /** Milliseconds until the head of the answer was ready. */
  readonly firstByteMillis: number
  readonly millis: number
  /** How many peers the lookup named. */
  readonly peersSeen: number
  /** The first peers asked or left out, in order. */
  readonly attempts: ReadonlyArray<Attempt>
  /** How many peers broke off, stalled, could not be reached or sent wrong bytes; those that said no are not among them. */
  readonly peersFailed: number
  /** Why there was no answer, or not all of it; empty where all went well. */
  readonly reason: string
}

/** Who was tried in vain, or not at all, and why, in words. */
export const failuresOf = (attempts: ReadonlyArray<Attempt>): ReadonlyArray<string> =>
  attempts.flatMap(({ address, outcome }) => outcome._tag === "Served" ? [] : [`${address}: ${Outcome.print(outcome)}`])

/** The request as JSON shows it: what became of its peers in words. */
export const printed = (event: PullEvent) => ({
  ...event,
  attempts: event.attempts.map((attempt) => ({ ...attempt, outcome: Outcome.print(attempt.outcome) }))
})

export class PullLog extends Context.Service<PullLog, {
  readonly record: (event: PullEvent) => Effect.Effect<void>
  /** As `record`, at once. */
  readonly recordUnsafe: (event: PullEvent) => void
  /** The last requests, the newest first. */
  readonly recent: Effect.Effect<ReadonlyArray<PullEvent>>
  /** Requests from now on; a slow reader misses the oldest. */
  readonly events: Stream.Stream<PullEvent>
}>()("@spegel-ts/registry/PullLog") {}

const capacity = 512
/** Attempts kept of one request. */
const maxAttempts = 32

/** An attempt that is under way. */
export type AttemptEntry = { -readonly [K in keyof Attempt]: Attempt[K] }

/** What a request did so far; the mirror writes, the ledger reads. */
export class PullRecord {
  peersSeen = 0
  peersFailed = 0
  /** When the head of the answer was ready, as `MonotonicTime.millis` has it. */
  headTime: number | undefined
  /** The id of the peer whose bytes went out last. */
  source: string | undefined
  /** Of the body, where it goes in chunks. */
  progress: Progress | undefined
  /** This node's end of the connection on which they come. */
  receivingPort: number | undefined
  readonly attempts: Array<AttemptEntry> = []

  /** Body bytes that the client's socket took so far. */
  get bytesTaken(): number {
    return this.progress?.moved ?? 0
  }

  /** Begins an entry, which is to be changed as it goes on. */
  begin(attempt: Attempt): AttemptEntry {
    const entry = { ...attempt }
    if (this.attempts.length < maxAttempts) this.attempts.push(entry)
    return entry
  }

  /** Who was tried in vain, or not at all, and why. */
  get failures(): ReadonlyArray<string> {
    return failuresOf(this.attempts)
  }
}

export const layer: Layer.Layer<PullLog> = Layer.effect(
  PullLog,
  Effect.gen(function*() {
    /** The oldest first; cut when it is twice what is kept, which costs less than a shift each time. */
    const recent: Array<PullEvent> = []
    const events = yield* PubSub.sliding<PullEvent>(capacity)
    const recordUnsafe = (event: PullEvent) => {
      recent.push(event)
      if (recent.length === 2 * capacity) recent.splice(0, capacity)
      PubSub.publishUnsafe(events, event)
    }
    return PullLog.of({
      record: (event) => Effect.sync(() => recordUnsafe(event)),
      recordUnsafe,
      recent: Effect.sync(() => recent.slice(-capacity).toReversed()),
      events: Stream.fromPubSub(events)
    })
  })
)
