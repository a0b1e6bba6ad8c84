/**
 * The knowledge of a candidate, and how it changes. Its steps (`Campaign`, `Watching`, `Writing`) share this value and nothing
 * else. All times are milliseconds of this machine's monotonic clock, and none is compared with another machine's.
 */
import * as Background from "@spegel-ts/background/Background"
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { Cause, Duration, Effect, Option, Queue, SubscriptionRef } from "effect"
import type { Identity, LeaseUnavailable } from "../../LeaderElection.ts"
import type { Lease } from "../lease/Lease.ts"
import type { LeaseApi } from "../lease/LeaseApi.ts"
import type { Times } from "./Times.ts"

/** The leader, as readers see it. Once the Lease was read, failures no longer hide what it said. */
export type LeaderView =
  | { readonly _tag: "Unread" }
  | { readonly _tag: "Unreadable"; readonly error: LeaseUnavailable }
  | { readonly _tag: "Read"; readonly holder: Option.Option<Identity> }

export interface State {
  /** The Lease as it was last read, and when; undefined before the first answer. */
  observed: { readonly lease: Option.Option<Lease>; readonly at: number } | undefined
  /** Whether the Lease ever had a holder: then its deletion does not free it at once. */
  wasHeld: boolean
  /** The end of this node's term; -Infinity while it does not lead. */
  leadsUntil: number
  /** Whether the API server answers. */
  contact: "not yet" | "held" | "lost"
  /** The time from which others' leases may be taken: after an outage their holders come first. */
  othersFrom: number
  /** Until then no attempt is made: the last one failed. */
  attemptFrom: number
}

export interface Candidate {
  readonly api: LeaseApi
  readonly identity: Identity
  readonly times: Times
  readonly state: State
  readonly leader: SubscriptionRef.SubscriptionRef<LeaderView>
  /** Wakes the campaign: the Lease has changed, or the server answers again. */
  readonly changed: Queue.Queue<void>
  /** Restarts the watch, which has missed something. */
  readonly stale: Queue.Queue<void>
  readonly health: Background.Health
}

export const make = Effect.fnUntraced(function*(
  options: Pick<Candidate, "api" | "identity" | "times">
): Effect.fn.Return<Candidate> {
  return {
    ...options,
    state: {
      observed: undefined,
      wasHeld: false,
      leadsUntil: -Infinity,
      contact: "not yet",
      othersFrom: -Infinity,
      attemptFrom: -Infinity
    },
    leader: yield* SubscriptionRef.make<LeaderView>({ _tag: "Unread" }),
    changed: yield* Queue.sliding<void>(1),
    stale: yield* Queue.sliding<void>(1),
    health: yield* Background.health("leader election", { distinctReasons: 16 })
  }
})

/** The Lease that was last read; none if there is none. */
export const observedLease = ({ state: { observed } }: Candidate): Option.Option<Lease> =>
  observed === undefined ? Option.none() : observed.lease

const versionOf = (lease: Option.Option<Lease>): string | undefined => Option.getOrUndefined(lease)?.resourceVersion

export const observedVersion = (candidate: Candidate): string | undefined => versionOf(observedLease(candidate))

/** Whether the Lease names this node, which may have written it in an earlier term or an earlier process. */
export const isHolder = (candidate: Candidate): boolean =>
  Option.exists(observedLease(candidate), ({ holder }) => Option.contains(holder, candidate.identity))

/** Learns the Lease as the server has it now. */
export const observe = Effect.fnUntraced(function*(candidate: Candidate, lease: Option.Option<Lease>) {
  const { changed, state } = candidate
  if (state.observed !== undefined && observedVersion(candidate) === versionOf(lease)) return
  // A node that may not create a Lease waits; now that there is one it may be allowed to update it.
  if (Option.isNone(observedLease(candidate)) && Option.isSome(lease)) state.attemptFrom = -Infinity
  state.observed = { lease, at: yield* MonotonicTime.millis }
  const holder = Option.flatMap(lease, ({ holder }) => holder)
  state.wasHeld ||= Option.isSome(holder)
  yield* announce(candidate, holder)
  yield* Queue.offer(changed, undefined)
})

const announce = Effect.fnUntraced(function*({ api, leader }: Candidate, holder: Option.Option<Identity>) {
  const known = yield* SubscriptionRef.get(leader)
  if (known._tag === "Read" && Option.getOrUndefined(known.holder) === Option.getOrUndefined(holder)) return
  yield* SubscriptionRef.set(leader, { _tag: "Read", holder })
  yield* Effect.logInfo(
    Option.match(holder, {
      onNone: () => `lease ${api.label}: nobody leads`,
      onSome: (holder) => `lease ${api.label}: ${JSON.stringify(holder)} leads`
    })
  )
})

/** A request failed: says so, and tells readers who do not know a leader yet. */
export const report = Effect.fnUntraced(function*({ health, leader }: Candidate, error: LeaseUnavailable) {
  yield* health.failed(Cause.fail(error))
  yield* SubscriptionRef.update(
    leader,
    (view): LeaderView => view._tag === "Read" ? view : { _tag: "Unreadable", error }
  )
})

/** The server does not answer; others' leases can no longer be judged. */
export const loseContact = ({ state }: Candidate): Effect.Effect<void> =>
  Effect.sync(() => {
    state.contact = "lost"
  })

/** The server answers. After an outage the holder of the Lease has two retry periods before others may take it. */
export const regainContact = Effect.fnUntraced(function*({ changed, health, state, times }: Candidate) {
  yield* health.works
  if (state.contact === "held") return
  if (state.contact === "lost") state.othersFrom = (yield* MonotonicTime.millis) + 2 * times.retryMillis
  state.contact = "held"
  yield* Queue.offer(changed, undefined)
})

/** Longest lease that another can write, so that nobody keeps it for ever. */
const maxLeaseMillis = 60_000

/** How long the Lease belongs to its holder: what is written in it, but no less than this node's own lease duration. */
const durationOf = (lease: Option.Option<Lease>, { leaseMillis }: Times): number => {
  const seconds = Option.flatMap(lease, ({ durationSeconds }) => durationSeconds)
  const written = Option.match(seconds, { onNone: () => 0, onSome: (seconds) => seconds * 1000 })
  return Math.max(leaseMillis, Math.min(maxLeaseMillis, written))
}

/** When this node may try to hold the Lease; Infinity while that cannot be known. */
const freeFrom = (candidate: Candidate): number => {
  const { attemptFrom, contact, observed, othersFrom, wasHeld } = candidate.state
  if (observed === undefined) return Infinity
  if (isHolder(candidate)) return attemptFrom
  if (contact !== "held") return Infinity
  const { at, lease } = observed
  const holder = Option.flatMap(lease, ({ holder }) => holder)
  // Deleting a Lease does not end its holder's term: the holder may not know yet.
  const isTaken = Option.isSome(holder) || (Option.isNone(lease) && wasHeld)
  return Math.max(attemptFrom, isTaken ? Math.max(at + durationOf(lease, candidate.times), othersFrom) : at)
}

/** Milliseconds until this node may try to hold the Lease, if nothing changes. */
export const untilFree = (candidate: Candidate): Effect.Effect<number> =>
  Effect.map(MonotonicTime.millis, (now) => freeFrom(candidate) - now)

/** Waits for a change, but no longer than `millis`. */
export const changeWithin = ({ changed }: Candidate, millis: number): Effect.Effect<unknown> =>
  millis === Infinity ? Queue.take(changed) : Effect.timeoutOption(Queue.take(changed), Math.ceil(millis))

/** The pause that the server asked for; 0 if it asked for none. */
export const retryAfterMillis = ({ retryAfter }: { readonly retryAfter?: Duration.Duration | undefined }): number =>
  retryAfter === undefined ? 0 : Duration.toMillis(retryAfter)
