/** The writes of a candidate: it takes the Lease over, renews it, and releases it. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { Clock, type Duration, Effect, Option, Queue, Result } from "effect"
import type { LeaseUnavailable } from "../../LeaderElection.ts"
import * as Lease from "../lease/Lease.ts"
import type { LeaseConflict } from "../lease/LeaseApi.ts"
import {
  type Candidate,
  isHolder,
  loseContact,
  observe,
  observedLease,
  observedVersion,
  report,
  retryAfterMillis
} from "./Candidate.ts"

const claim = ({ identity, times }: Candidate): Effect.Effect<Lease.Claim> =>
  Effect.map(Clock.currentTimeNanos, (nanos) => ({
    identity,
    durationSeconds: Math.max(1, Math.round(times.leaseMillis / 1000)),
    now: Lease.microTime(nanos)
  }))

/**
 * Writes the Lease as this node's own, if it is still what was observed: this node leads from then on. Succeeds with the time
 * at which the request was sent, from which the term counts.
 */
const write = Effect.fnUntraced(function*(
  candidate: Candidate
): Effect.fn.Return<number, LeaseConflict | LeaseUnavailable> {
  const { api, state, times } = candidate
  const sent = yield* MonotonicTime.millis
  const own = yield* claim(candidate)
  const lease = yield* Option.match(observedLease(candidate), {
    onNone: () => api.create(Lease.created(api.name, own)),
    onSome: (lease) => api.update(Lease.held(lease, own))
  })
  state.leadsUntil = sent + times.termMillis
  yield* observe(candidate, Option.some(lease))
  return sent
})

/** Reads the Lease beside the watch, which is restarted if it has not delivered the same. */
const reread = Effect.fnUntraced(function*(candidate: Candidate) {
  const { api, stale } = candidate
  const before = observedVersion(candidate)
  const { lease } = yield* Effect.tapError(
    api.list,
    () => Effect.andThen(loseContact(candidate), Queue.offer(stale, undefined))
  )
  yield* observe(candidate, lease)
  if (observedVersion(candidate) !== before) yield* Queue.offer(stale, undefined)
})

/** Tries once to hold the Lease. Succeeds with the time of the write, or with none if another was faster. */
export const attempt = (candidate: Candidate): Effect.Effect<Option.Option<number>, LeaseUnavailable> =>
  Effect.gen(function*() {
    if (!isHolder(candidate)) {
      // A silent server may apply this write later, and so depose a leader that it can hear again by then: read first.
      const seen = observedVersion(candidate)
      yield* reread(candidate)
      if (observedVersion(candidate) !== seen) return Option.none()
    }
    return Option.some(yield* write(candidate))
  }).pipe(Effect.catchTag("LeaseConflict", () => Effect.as(reread(candidate), Option.none())))

/** Renews until that succeeds, with the time of the write, or until another holds the Lease, with none. */
export const renew = Effect.fnUntraced(function*(candidate: Candidate): Effect.fn.Return<Option.Option<number>> {
  for (let conflicts = 0;;) {
    const written = yield* Effect.result(write(candidate))
    if (Result.isSuccess(written)) return Option.some(written.success)
    let pause = candidate.times.retryMillis
    if (written.failure._tag === "LeaseConflict") {
      // Often this node's own write, whose answer was lost.
      const read = yield* Effect.result(reread(candidate))
      if (Result.isFailure(read)) yield* report(candidate, read.failure)
      else {
        if (Option.isSome(observedLease(candidate)) && !isHolder(candidate)) return Option.none()
        if (conflicts++ === 0) continue
      }
    } else {
      yield* report(candidate, written.failure)
      pause = Math.max(pause, retryAfterMillis(written.failure))
    }
    yield* Effect.sleep(pause)
  }
})

/** Releases the Lease, so that another can lead at once. */
export const release = (candidate: Candidate, within: Duration.Duration): Effect.Effect<void> => {
  const { api, state } = candidate
  return Effect.gen(function*() {
    state.leadsUntil = -Infinity
    // A renewal may be under way still: its conflict is answered by a second attempt.
    for (let attempts = 0; attempts < 2 && isHolder(candidate); attempts++) {
      const lease = yield* Effect.fromOption(observedLease(candidate))
      const { now } = yield* claim(candidate)
      const written = yield* Effect.result(api.update(Lease.released(lease, now)))
      if (Result.isSuccess(written)) return yield* Effect.logInfo(`lease ${api.label}: given back`)
      if (written.failure._tag === "LeaseUnavailable") return yield* written.failure
      yield* reread(candidate)
    }
  }).pipe(
    Effect.timeout(within),
    Effect.catch((error) =>
      Effect.logWarning(
        `lease ${api.label}: not given back, it expires by itself: ${
          error._tag === "LeaseUnavailable" ? error.hint : error.message
        }`
      )
    )
  )
}
