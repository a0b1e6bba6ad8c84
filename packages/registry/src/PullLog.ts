/** A log of the last requests for content, in memory: which peers were asked, who served, how much, how fast, why not. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { Clock, Context, Effect, Layer, PubSub, Stream } from "effect"
import { LastHour } from "./internal/observe/LastHour.ts"
import * as Outcome from "./Outcome.ts"

/** One peer that was asked, or was passed over for a reason. */
export interface Attempt {
  /** The peer's id. */
  readonly peer: string
  readonly address: string
  /** The first byte it was asked for. */
  readonly start: number
  /** Whether it was asked because the first byte of another peer was late. */
  readonly hedge: boolean
  /** Milliseconds from the question to its first byte; undefined if none came. */
  readonly firstByteMillis: number | undefined
  /** Body bytes taken from it. */
  readonly bytes: number
  readonly outcome: Outcome.Outcome
}

/** One finished request. */
export interface PullEvent {
  /** When the request came, in milliseconds since the epoch. */
  readonly time: number
  readonly method: "GET" | "HEAD"
  /** Whether a peer asked, on behalf of its own client. */
  readonly mirrored: boolean
  /** The registry that the client named by `?ns=`; empty if none. */
  readonly registry: string
  /** The digest, or `registry/repository:tag`. */
  readonly content: string
  /** The `Range` header. */
  readonly range: string | undefined
  /** `local`, the id of the last peer that served, or `none`. */
  readonly source: string
  /** HTTP status; 0 if the client or the source went away during the body. */
  readonly status: number
  /** The size of the body that was to be sent, in bytes. */
  readonly bytes: number
  /** Milliseconds until the head of the answer was ready. */
  readonly firstByteMillis: number
  /** Milliseconds until the last byte was sent. */
  readonly millis: number
  /** How many peers the lookup found. */
  readonly peersSeen: number
  /** The first 32 attempts, in order. */
  readonly attempts: ReadonlyArray<Attempt>
  /** How many peers broke off, stalled, were unreachable or sent wrong bytes. Those that answered 404 do not count. */
  readonly peersFailed: number
  /** Why there was no answer, or only a part of it; empty if all went well. */
  readonly reason: string
}

/** The peers that did not serve, and why, in words. */
export const failuresOf = (attempts: ReadonlyArray<Attempt>): ReadonlyArray<string> =>
  attempts.flatMap(({ address, outcome }) => outcome._tag === "Served" ? [] : [`${address}: ${Outcome.print(outcome)}`])

/** The request as JSON shows it: what became of its peers in words. */
export const printed = (event: PullEvent) => ({
  ...event,
  attempts: event.attempts.map((attempt) => ({ ...attempt, outcome: Outcome.print(attempt.outcome) }))
})

/** Sums over the GETs of the last hour. Each file of an image, and each part of one, is a request. */
export interface HourTotals {
  /** Requests of this node's clients that peers served, at least in part. */
  readonly fromPeers: number
  /** The bytes that they got: those did not come from upstream. */
  readonly bytesFromPeers: number
  /** Requests of this node's clients that no peer served: they fell back to upstream. */
  readonly leftToUpstream: number
  /** Requests of this node's clients that peers failed to serve, from the start or half way: upstream served the rest. */
  readonly failed: number
  /** Peers that failed; another peer or upstream took over. */
  readonly peersFailed: number
  /** Requests of peers that this node served. */
  readonly sentToPeers: number
  readonly bytesSentToPeers: number
}

const capacity = 512
const maxQuestions = 128

export { isFailed } from "./internal/observe/LastHour.ts"

/** A peer asks what this node has. Those that follow a download in progress ask several times a second. */
export const isQuestion = ({ method, mirrored }: PullEvent): boolean => mirrored && method === "HEAD"

interface Kept {
  readonly event: PullEvent
  /** Counts all requests: the time of day may jump. */
  readonly number: number
}

/** The last ones of many. */
class Recent {
  /** Oldest first. It is cut when it is twice as long as what is kept, which costs less than a shift each time. */
  readonly #events: Array<Kept> = []
  readonly #capacity: number

  constructor(capacity: number) {
    this.#capacity = capacity
  }

  add(event: Kept): void {
    this.#events.push(event)
    if (this.#events.length === 2 * this.#capacity) this.#events.splice(0, this.#capacity)
  }

  get list(): ReadonlyArray<Kept> {
    return this.#events.slice(-this.#capacity)
  }
}

/** The last 512 requests, the last 128 questions of peers (HEAD) beside them, and those from now on. */
export class PullLog extends Context.Service<PullLog, {
  readonly record: (event: PullEvent) => Effect.Effect<void>
  /** As `record`, synchronously. */
  readonly recordUnsafe: (event: PullEvent) => void
  /** The last requests, newest first. */
  readonly recent: Effect.Effect<ReadonlyArray<PullEvent>>
  readonly lastHour: Effect.Effect<HourTotals>
  /** Requests from now on. A slow reader misses the oldest. */
  readonly events: Stream.Stream<PullEvent>
}>()("@spegel-ts/registry/PullLog") {
  /** Keeps the requests in memory: they are lost when the process ends. */
  static readonly layer: Layer.Layer<PullLog> = Layer.effect(
    PullLog,
    Effect.gen(function*() {
      const recent = new Recent(capacity)
      const questions = new Recent(maxQuestions)
      let number = 0
      const events = yield* PubSub.sliding<PullEvent>(capacity)
      const lastHour = new LastHour()
      const clock = yield* Clock.Clock
      const recordUnsafe = (event: PullEvent) => {
        const kept = isQuestion(event) ? questions : recent
        kept.add({ event, number: number++ })
        lastHour.add(event, MonotonicTime.millisUnsafe(clock))
        PubSub.publishUnsafe(events, event)
      }
      return PullLog.of({
        record: (event) => Effect.sync(() => recordUnsafe(event)),
        recordUnsafe,
        recent: Effect.sync(() =>
          [...recent.list, ...questions.list]
            .toSorted((one, other) => other.number - one.number)
            .map(({ event }) => event)
        ),
        lastHour: Effect.map(MonotonicTime.millis, (now) => lastHour.totals(now)),
        events: Stream.fromPubSub(events)
      })
    })
  )
}
