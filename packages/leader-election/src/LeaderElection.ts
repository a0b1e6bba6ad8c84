/**
 * Which of several candidates leads, and whether this node does. Layers: `KubernetesLease.layer` (a Lease of a Kubernetes
 * API) and `MemoryLease.layer` (one process, for tests).
 *
 * A leader stops being one, by its own clock, before any other candidate may take over: there is never a moment with two.
 */
import { Context, Data, Duration, type Effect, type Option, Schema, type Stream } from "effect"

/** Who a candidate is; the mirror's is its full multiaddr, so that whoever knows the leader can dial it. */
export const Identity = Schema.NonEmptyString.pipe(Schema.check(Schema.isMaxLength(512)), Schema.brand("Identity"))
export type Identity = typeof Identity.Type

/** The lease can be neither read nor written; `hint` says why and what to do. */
export class LeaseUnavailable extends Data.TaggedError("LeaseUnavailable")<{
  /** Namespace and name, as `spegel/spegel-leader-election`. */
  readonly lease: string
  readonly hint: string
  /** How long the server asks to be left alone. */
  readonly retryAfter?: Duration.Duration | undefined
  readonly cause?: unknown
}> {
  override get message() {
    return `lease ${this.lease}: ${this.hint}`
  }
}

export class LeaderElection extends Context.Service<LeaderElection, {
  /**
   * The identity of the leader, now and at each change; none while nobody holds the lease. The first one comes, or the
   * stream fails, within the deadline of one request. Later failures do not end it: the last known leader stays.
   */
  readonly leader: Stream.Stream<Option.Option<Identity>, LeaseUnavailable>
  /** Whether this node leads at this moment. */
  readonly isLeader: Effect.Effect<boolean>
}>()("@spegel-ts/leader-election/LeaderElection") {}

/** How long things take; the defaults are those of Spegel and client-go's users. */
export interface ElectionTimes {
  /** A lease that was not seen to change for this long is free. */
  readonly leaseDuration: Duration.Duration
  /** How long the leader tries to renew before it gives up. */
  readonly renewDeadline: Duration.Duration
  /** Between renewals, and between attempts. */
  readonly retryPeriod: Duration.Duration
}

export const defaultTimes: ElectionTimes = {
  leaseDuration: Duration.seconds(10),
  renewDeadline: Duration.seconds(5),
  retryPeriod: Duration.seconds(2)
}
