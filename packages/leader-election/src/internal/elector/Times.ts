/** The times of an election in milliseconds, as the elector counts. */
import { Duration, Effect } from "effect"
import { type ElectionTimes, ElectionTimesInvalid } from "../../LeaderElection.ts"

export interface Times {
  /** How long a Lease that does not change belongs to its holder. */
  readonly leaseMillis: number
  readonly retryMillis: number
  /** How long a renewal makes a leader, from the moment its request was sent. */
  readonly termMillis: number
}

/**
 * There are never two leaders because a term is shorter than a lease: a leader counts its term from when it sent the renewal,
 * all others count the lease from when they saw it, which is later.
 */
export const make = (times: ElectionTimes): Effect.Effect<Times, ElectionTimesInvalid> => {
  const leaseMillis = Duration.toMillis(times.leaseDuration)
  const retryMillis = Duration.toMillis(times.retryPeriod)
  const termMillis = retryMillis + Duration.toMillis(times.renewDeadline)
  return retryMillis > 0 && termMillis < leaseMillis
    ? Effect.succeed({ leaseMillis, retryMillis, termMillis })
    : Effect.fail(
      new ElectionTimesInvalid({
        reason: "the lease duration must be longer than the retry period and the renew deadline together"
      })
    )
}
