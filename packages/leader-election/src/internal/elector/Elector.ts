/**
 * A candidate: follows the Lease by one watch, takes it over when it is free, renews it while it leads, gives it back when
 * its scope closes. It writes what client-go's elector writes; docs/kubernetes-election.md says where it does better, and
 * docs/decisions/0006-elector.md why it is not client-go's algorithm.
 */
import * as Background from "@spegel-ts/background/Background"
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { Effect, type Scope, Stream, SubscriptionRef } from "effect"
import type { ElectionTimes, ElectionTimesInvalid, Identity, LeaderElection } from "../../LeaderElection.ts"
import type { LeaseApi } from "../lease/LeaseApi.ts"
import { campaign } from "./Campaign.ts"
import * as Candidate from "./Candidate.ts"
import * as Times from "./Times.ts"
import { follow } from "./Watching.ts"
import { release } from "./Writing.ts"

export const make = Effect.fnUntraced(function*(options: {
  readonly api: LeaseApi
  readonly identity: Identity
  readonly times: ElectionTimes
}): Effect.fn.Return<typeof LeaderElection.Service, ElectionTimesInvalid, Scope.Scope> {
  const { api, identity } = options
  const candidate = yield* Candidate.make({ api, identity, times: yield* Times.make(options.times) })
  // Before the fibers, so that it runs after they have stopped.
  yield* Effect.addFinalizer(() => release(candidate, options.times.retryPeriod))
  yield* Background.keepRunning("watch of the lease", follow(candidate))
  yield* Background.keepRunning("campaign for the lease", campaign(candidate))
  return {
    leader: SubscriptionRef.changes(candidate.leader).pipe(
      Stream.filter((view) => view._tag !== "Unread"),
      Stream.mapEffect((view) => view._tag === "Read" ? Effect.succeed(view.holder) : Effect.fail(view.error)),
      Stream.changes
    ),
    isLeader: Effect.map(MonotonicTime.millis, (now) => now < candidate.state.leadsUntil)
  }
})
