/**
 * Elects one leader among several candidates, and tells each of them who leads.
 *
 * A leader stops being one, by its own monotonic clock, before any other candidate may take over: there are never two at a
 * moment. There may be none, for as long as the lease duration and two retry periods.
 */
import { Context, Data, Duration, type Effect, type Option, Schema, type Stream } from "effect"

/** The name of a candidate. The mirror uses its full multiaddr, so that a node that knows the leader can dial it. */
export const Identity = Schema.NonEmptyString.pipe(Schema.check(Schema.isMaxLength(512)), Schema.brand("Identity"))
/** See the schema: a text of 1 to 512 characters. */
export type Identity = typeof Identity.Type

/**
 * The lease can be neither read nor written; `hint` says why and what to do. The candidate logs it and tries again, so only
 * readers of `leader` before the first success see it.
 */
export class LeaseUnavailable extends Data.TaggedError("LeaseUnavailable")<{
  /** Namespace and name, as `spegel/spegel-leader-election`. */
  readonly lease: string
  readonly hint: string
  /** How long the server asks clients to wait before the next request. */
  readonly retryAfter?: Duration.Duration | undefined
  readonly cause?: unknown
}> {
  override get message() {
    return `lease ${this.lease}: ${this.hint}`
  }
}

/** The times leave room for two leaders. A layer that is given them is not built. */
export class ElectionTimesInvalid extends Data.TaggedError("ElectionTimesInvalid")<{ readonly reason: string }> {
  override get message() {
    return `election times: ${this.reason}`
  }
}

/**
 * The times of an election. All candidates of a lease must be given the same. `leaseDuration` must be longer than `retryPeriod`
 * and `renewDeadline` together.
 */
export interface ElectionTimes {
  /** A lease that was not seen to change for this long is free. Written to the Lease in whole seconds. */
  readonly leaseDuration: Duration.Duration
  /** How long the leader tries to renew before it gives up. A request has half of this. */
  readonly renewDeadline: Duration.Duration
  /** The time between renewals, and between attempts. */
  readonly retryPeriod: Duration.Duration
}

/** 10, 5 and 2 seconds, as in Go Spegel. */
export const defaultTimes: ElectionTimes = {
  leaseDuration: Duration.seconds(10),
  renewDeadline: Duration.seconds(5),
  retryPeriod: Duration.seconds(2)
}

/** The candidate that a layer stands for. */
export interface CandidateOptions {
  readonly identity: Identity
  /** Default `defaultTimes`. */
  readonly times?: ElectionTimes
}

/**
 * The service of one candidate.
 *
 * Layers: `KubernetesLease.layer`, by a Lease of a Kubernetes API, and `MemoryLease.layer`, within a process. Each is a module of
 * its own, so that a program that only names this service loads neither (docs/decisions/0008-metrics-and-layers.md). Both pass
 * the suite `LeaderElectionConformance`.
 */
export class LeaderElection extends Context.Service<LeaderElection, {
  /**
   * The identity of the leader, now and at each change; none while nobody holds the lease. The first value comes, or the
   * stream fails, within the deadline of one request. Later failures do not end the stream: the last known leader stays.
   */
  readonly leader: Stream.Stream<Option.Option<Identity>, LeaseUnavailable>
  /** Whether this node leads at this moment. */
  readonly isLeader: Effect.Effect<boolean>
}>()("@spegel-ts/leader-election/LeaderElection") {}
