/** Follows the Lease by one watch at a time, each resumed where the last one ended. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { Effect, Option, Queue, Random, Result, Stream } from "effect"
import type { LeaseUnavailable } from "../../LeaderElection.ts"
import type { LeaseEvent, WatchExpired } from "../lease/LeaseApi.ts"
import { type Candidate, loseContact, observe, regainContact, report, retryAfterMillis } from "./Candidate.ts"
import * as Pace from "./Pace.ts"

/** A watch that ends sooner has not worked. */
const shortWatchMillis = 5000

interface Cursor {
  /** The version from which the next watch goes on; undefined if the Lease must be listed first. */
  resume: string | undefined
  /** When the last watch was opened; undefined if it was not. */
  opened: number | undefined
}

const isLeading = ({ state }: Candidate): boolean => state.leadsUntil !== -Infinity

const learn = (candidate: Candidate, cursor: Cursor, event: LeaseEvent): Effect.Effect<void> => {
  cursor.resume = event._tag === "Changed" ? event.lease.resourceVersion : event.resourceVersion
  // The leader knows its own writes before the watch delivers them.
  if (event._tag === "Bookmark" || isLeading(candidate)) return Effect.void
  return observe(candidate, event._tag === "Changed" ? Option.some(event.lease) : Option.none())
}

/** Opens a watch and learns from it until it ends, fails or has missed something. */
const watchOnce = Effect.fnUntraced(function*(candidate: Candidate, cursor: Cursor) {
  const { api, stale } = candidate
  cursor.opened = undefined
  if (cursor.resume === undefined) {
    const { lease, resourceVersion } = yield* api.list
    cursor.resume = resourceVersion
    if (!isLeading(candidate)) yield* observe(candidate, lease)
  }
  const events = yield* api.watch(cursor.resume)
  yield* regainContact(candidate)
  cursor.opened = yield* MonotonicTime.millis
  yield* Queue.clear(stale)
  yield* Stream.runForEach(
    Stream.interruptWhen(events, Queue.take(stale)),
    (event) => learn(candidate, cursor, event)
  )
}, Effect.scoped)

/** Prepares the next watch after a failure. Returns the pause that the server asked for, in milliseconds. */
const recover = Effect.fnUntraced(function*(
  candidate: Candidate,
  cursor: Cursor,
  error: WatchExpired | LeaseUnavailable
): Effect.fn.Return<number> {
  if (error._tag === "WatchExpired") {
    cursor.resume = undefined
    return 0
  }
  if (cursor.opened === undefined) {
    cursor.resume = undefined
    yield* loseContact(candidate)
    yield* report(candidate, error)
  }
  return retryAfterMillis(error)
})

/** Runs for ever. */
export const follow = Effect.fnUntraced(function*(candidate: Candidate): Effect.fn.Return<never> {
  const cursor: Cursor = { resume: undefined, opened: undefined }
  let failures = 0
  for (;;) {
    const watched = yield* Effect.result(watchOnce(candidate, cursor))
    const worked = cursor.opened !== undefined && (yield* MonotonicTime.millis) - cursor.opened >= shortWatchMillis
    failures = worked ? 0 : failures + 1
    // The server ends each watch after some minutes.
    if (Result.isSuccess(watched) && worked) continue
    const asked = Result.isFailure(watched) ? yield* recover(candidate, cursor, watched.failure) : 0
    yield* Effect.sleep(asked + Pace.backoff(candidate.times.retryMillis, failures, yield* Random.next))
  }
})
