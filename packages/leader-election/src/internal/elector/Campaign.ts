/** The campaign of a candidate: it waits until the Lease is free, stands back for a random time, takes it, and renews it. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { Effect, Option, Random, Result } from "effect"
import {
  type Candidate,
  changeWithin,
  isHolder,
  observedVersion,
  report,
  retryAfterMillis,
  untilFree
} from "./Candidate.ts"
import * as Pace from "./Pace.ts"
import { attempt, renew } from "./Writing.ts"

/** When this node's turn comes to write a free Lease. Drawn once for each version of it. */
interface Turn {
  readonly version: string | undefined
  readonly at: number
}

/** Runs for ever. */
export const campaign = Effect.fnUntraced(function*(candidate: Candidate): Effect.fn.Return<never> {
  let turn: Turn | undefined
  for (;;) {
    const wait = yield* untilFree(candidate)
    if (wait > 0) {
      turn = undefined
      yield* changeWithin(candidate, wait)
      continue
    }
    if (!isHolder(candidate)) {
      turn = yield* turnOf(candidate, turn)
      const left = turn.at - (yield* MonotonicTime.millis)
      if (left > 0) {
        yield* changeWithin(candidate, left)
        continue
      }
    }
    turn = undefined
    yield* tryToLead(candidate)
  }
})

const turnOf = Effect.fnUntraced(function*(candidate: Candidate, drawn: Turn | undefined): Effect.fn.Return<Turn> {
  const version = observedVersion(candidate)
  if (drawn !== undefined && drawn.version === version) return drawn
  const pause = Pace.standBack(candidate.times.retryMillis, yield* Random.next)
  return { version, at: (yield* MonotonicTime.millis) + pause }
})

const tryToLead = Effect.fnUntraced(function*(candidate: Candidate) {
  const { state, times: { retryMillis } } = candidate
  const tried = yield* Effect.result(attempt(candidate))
  if (Result.isSuccess(tried)) {
    if (Option.isSome(tried.success)) yield* lead(candidate, tried.success.value)
    return
  }
  yield* report(candidate, tried.failure)
  // The node that the Lease names tries most often: if it succeeds, the lease does not change hands.
  const pause = isHolder(candidate) ? retryMillis : Pace.jittered(retryMillis, yield* Random.next)
  state.attemptFrom = (yield* MonotonicTime.millis) + pause + retryAfterMillis(tried.failure)
})

/** Renews the Lease, last written at `acquired`, until this node's term ends or another holds the Lease. */
const lead = Effect.fnUntraced(function*(candidate: Candidate, acquired: number) {
  const { api, state, times } = candidate
  yield* Effect.logInfo(`lease ${api.label}: this node leads`)
  yield* Effect.gen(function*() {
    for (let renewed = acquired;;) {
      yield* Effect.sleep(Math.max(0, renewed + times.retryMillis - (yield* MonotonicTime.millis)))
      const left = state.leadsUntil - (yield* MonotonicTime.millis)
      const result = yield* Effect.timeoutOption(renew(candidate), Math.max(0, left))
      if (Option.isNone(result) || Option.isNone(result.value)) return
      renewed = result.value.value
    }
  }).pipe(Effect.ensuring(Effect.sync(() => {
    state.leadsUntil = -Infinity
  })))
  yield* Effect.logWarning(`lease ${api.label}: this node no longer leads`)
})
