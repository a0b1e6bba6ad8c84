/**
 * A candidate: follows the Lease by one watch, takes it over when it is free, renews it while it leads, gives it back when
 * its scope closes. client-go's elector in what it writes; docs/kubernetes-election.md tells where it does better.
 *
 * Why there are never two leaders: a renewal counts from the moment its request was sent, and makes a leader for
 * `retryPeriod + renewDeadline`. Others count from the moment they saw the renewal, which is later, and wait for
 * `leaseDuration`, which is longer. Only monotonic clocks are read, and none is compared with another's.
 */
import * as Background from "@spegel-ts/background/Background"
import {
  Cause,
  Clock,
  Data,
  Duration,
  Effect,
  Option,
  Queue,
  Random,
  Result,
  type Scope,
  Stream,
  SubscriptionRef
} from "effect"
import { type ElectionTimes, type Identity, type LeaderElection, LeaseUnavailable } from "../LeaderElection.ts"
import * as Lease from "./Lease.ts"
import type { LeaseApi, LeaseEvent } from "./LeaseApi.ts"
import * as Pace from "./Pace.ts"

/** The times leave room for two leaders. */
export class ElectionTimesInvalid extends Data.TaggedError("ElectionTimesInvalid")<{ readonly reason: string }> {
  override get message() {
    return `election times: ${this.reason}`
  }
}

/** What is known of the leader. Once the Lease was read, failures no longer hide what it said. */
type View =
  | { readonly _tag: "Unread" }
  | { readonly _tag: "Unreadable"; readonly error: LeaseUnavailable }
  | { readonly _tag: "Read"; readonly holder: Option.Option<Identity> }

/** Longest lease that another can write, so that nobody keeps it for ever. Shorter ones than one's own do not count. */
const maxLeaseMillis = 60_000
/** A watch that ends sooner has not worked. */
const shortWatchMillis = 5000

const monotonic = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

export const make = Effect.fnUntraced(function*(options: {
  readonly api: LeaseApi
  readonly identity: Identity
  readonly times: ElectionTimes
}): Effect.fn.Return<typeof LeaderElection.Service, ElectionTimesInvalid, Scope.Scope> {
  const { api, identity } = options
  const leaseMillis = Duration.toMillis(options.times.leaseDuration)
  const retryMillis = Duration.toMillis(options.times.retryPeriod)
  /** How long a renewal makes a leader. */
  const termMillis = retryMillis + Duration.toMillis(options.times.renewDeadline)
  if (!(retryMillis > 0 && termMillis < leaseMillis)) {
    return yield* new ElectionTimesInvalid({
      reason: "the lease duration must be longer than the retry period and the renew deadline together"
    })
  }

  let observed: { readonly lease: Option.Option<Lease.Lease>; readonly at: number } | undefined
  let wasHeld = false
  /** Until when this node leads, on the monotonic clock. */
  let leadsUntil = -Infinity
  let leading = false
  let inContact = false
  let wasLost = false
  /** Others' leases are left alone until then: their holders come first after an outage. */
  let eligibleFrom = -Infinity
  let attemptFrom = -Infinity
  const { failed, works } = yield* Background.health("leader election", { distinctReasons: 16 })
  const view = yield* SubscriptionRef.make<View>({ _tag: "Unread" })
  const changed = yield* Queue.sliding<void>(1)
  /** The watch has missed something. */
  const stale = yield* Queue.sliding<void>(1)
  const changeWithin = (millis: number) =>
    millis === Infinity ? Queue.take(changed) : Effect.timeoutOption(Queue.take(changed), Math.ceil(millis))

  const claim = Effect.map(Clock.currentTimeNanos, (nanos): Lease.Claim => ({
    identity,
    durationSeconds: Math.max(1, Math.round(leaseMillis / 1000)),
    now: Lease.microTime(nanos)
  }))
  const current = () => observed === undefined ? Option.none() : observed.lease
  const version = () => Option.getOrUndefined(current())?.resourceVersion
  const isOwn = () => Option.exists(current(), ({ holder }) => Option.contains(holder, identity))

  const observe = Effect.fnUntraced(function*(lease: Option.Option<Lease.Lease>) {
    if (observed !== undefined && version() === Option.getOrUndefined(lease)?.resourceVersion) return
    // A chart may make the lease for nodes that may not.
    if (Option.isNone(current()) && Option.isSome(lease)) attemptFrom = -Infinity
    observed = { lease, at: yield* monotonic }
    const holder = Option.flatMap(lease, ({ holder }) => holder)
    wasHeld ||= Option.isSome(holder)
    const known = yield* SubscriptionRef.get(view)
    if (known._tag !== "Read" || Option.getOrUndefined(known.holder) !== Option.getOrUndefined(holder)) {
      yield* SubscriptionRef.set(view, { _tag: "Read", holder })
      yield* Effect.logInfo(
        Option.match(holder, {
          onNone: () => `lease ${api.label}: nobody leads`,
          onSome: (holder) => `lease ${api.label}: ${JSON.stringify(holder)} leads`
        })
      )
    }
    yield* Queue.offer(changed, undefined)
  })

  const report = Effect.fnUntraced(function*(error: LeaseUnavailable) {
    yield* failed(Cause.fail(error))
    yield* SubscriptionRef.update(view, (view): View => view._tag === "Read" ? view : { _tag: "Unreadable", error })
  })

  const regained = Effect.gen(function*() {
    yield* works
    if (inContact) return
    if (wasLost) eligibleFrom = (yield* monotonic) + 2 * retryMillis
    inContact = true
    yield* Queue.offer(changed, undefined)
  })

  /** Milliseconds until this node may try to hold the lease. */
  const untilFree = Effect.map(monotonic, (now) => {
    if (observed === undefined) return Infinity
    const { at, lease } = observed
    if (isOwn()) return attemptFrom - now
    if (!inContact) return Infinity
    const holder = Option.flatMap(lease, ({ holder }) => holder)
    const seconds = Option.flatMap(lease, ({ durationSeconds }) => durationSeconds)
    const written = Option.match(seconds, { onNone: () => 0, onSome: (seconds) => seconds * 1000 })
    const duration = Math.max(leaseMillis, Math.min(maxLeaseMillis, written))
    // Deleting a lease does not end its term: the holder may not know yet.
    const inTerm = Option.isSome(holder) || (Option.isNone(lease) && wasHeld)
    return Math.max(attemptFrom, inTerm ? Math.max(at + duration, eligibleFrom) : at) - now
  })

  /** Writes the lease as this node's own, if it is still what was observed. */
  const write = Effect.gen(function*() {
    const started = yield* monotonic
    const own = yield* claim
    const lease = yield* Option.match(current(), {
      onNone: () => api.create(Lease.created(api.name, own)),
      onSome: (lease) => api.update(Lease.held(lease, own))
    })
    leadsUntil = started + termMillis
    leading = true
    yield* observe(Option.some(lease))
    return started
  })

  /** Reads the lease beside the watch, which is opened anew where it has not told the same. */
  const reread = Effect.gen(function*() {
    const before = version()
    const { lease } = yield* api.list
    yield* observe(lease)
    if (version() !== before) yield* Queue.offer(stale, undefined)
  }).pipe(Effect.tapError(() => {
    inContact = false
    wasLost = true
    return Queue.offer(stale, undefined)
  }))

  /** Tries once to hold the lease. Succeeds with the time, or with none where another was faster. */
  const attempt = Effect.gen(function*() {
    if (!isOwn()) {
      // A server that is silent may find a write later, and depose a leader that can be heard again by then: ask first.
      const seen = version()
      yield* reread
      if (version() !== seen) return Option.none()
    }
    return Option.some(yield* write)
  }).pipe(Effect.catchTag("LeaseConflict", () => Effect.as(reread, Option.none())))

  /** Succeeds with the time of a renewal; with none when another holds the lease. */
  const renewal = Effect.gen(function*() {
    for (let conflicts = 0;;) {
      const result = yield* Effect.result(write)
      if (Result.isSuccess(result)) return Option.some(result.success)
      const error = result.failure
      if (error._tag === "LeaseConflict") {
        // Often our own write, whose answer was lost.
        const read = yield* Effect.result(reread)
        if (Result.isFailure(read)) yield* report(read.failure)
        else if (Option.isSome(current()) && !isOwn()) return Option.none()
        if (Result.isSuccess(read) && conflicts++ === 0) continue
      } else yield* report(error)
      yield* Effect.sleep(Math.max(retryMillis, retryAfterMillis(error)))
    }
  })

  const lead = Effect.fnUntraced(function*(acquired: number) {
    yield* Effect.logInfo(`lease ${api.label}: this node leads`)
    for (let renewed = acquired;;) {
      yield* Effect.sleep(Math.max(0, renewed + retryMillis - (yield* monotonic)))
      const left = leadsUntil - (yield* monotonic)
      const result = yield* Effect.timeoutOption(renewal, Math.max(0, left))
      if (Option.isNone(result) || Option.isNone(result.value)) break
      renewed = result.value.value
    }
  }, (leads) =>
    leads.pipe(
      Effect.ensuring(Effect.sync(() => {
        leadsUntil = -Infinity
        leading = false
      })),
      Effect.andThen(Effect.logWarning(`lease ${api.label}: this node leads no longer`))
    ))

  const campaign = Effect.gen(function*() {
    let turn: { readonly version: string | undefined; readonly at: number } | undefined
    for (;;) {
      const wait = yield* untilFree
      if (wait > 0) {
        turn = undefined
        yield* changeWithin(wait)
        continue
      }
      if (!isOwn()) {
        const now = yield* monotonic
        if (turn === undefined || turn.version !== version()) {
          turn = { version: version(), at: now + Pace.standBack(retryMillis, yield* Random.next) }
        }
        if (turn.at > now) {
          yield* changeWithin(turn.at - now)
          continue
        }
      }
      turn = undefined
      const result = yield* Effect.result(attempt)
      if (Result.isSuccess(result)) {
        if (Option.isSome(result.success)) yield* lead(result.success.value)
        continue
      }
      yield* report(result.failure)
      // Its last holder tries most often: what it renews need not change hands.
      const pause = isOwn() ? retryMillis : Pace.jittered(retryMillis, yield* Random.next)
      attemptFrom = (yield* monotonic) + pause + retryAfterMillis(result.failure)
    }
  })

  const follow = Effect.gen(function*() {
    let failures = 0
    let resume: string | undefined
    const onEvent = (event: LeaseEvent) => {
      resume = event._tag === "Changed" ? event.lease.resourceVersion : event.resourceVersion
      // The leader knows its own writes before the watch tells of them.
      if (event._tag === "Bookmark" || leading) return Effect.void
      return observe(event._tag === "Changed" ? Option.some(event.lease) : Option.none())
    }
    for (;;) {
      let opened: number | undefined
      const result = yield* Effect.gen(function*() {
        if (resume === undefined) {
          const { lease, resourceVersion } = yield* api.list
          resume = resourceVersion
          if (!leading) yield* observe(lease)
        }
        const events = yield* api.watch(resume)
        yield* regained
        opened = yield* monotonic
        yield* Queue.clear(stale)
        yield* Stream.runForEach(Stream.interruptWhen(events, Queue.take(stale)), onEvent)
      }).pipe(Effect.scoped, Effect.result)
      const worked = opened !== undefined && (yield* monotonic) - opened >= shortWatchMillis
      failures = worked ? 0 : failures + 1
      if (Result.isFailure(result)) {
        if (result.failure._tag === "WatchExpired") resume = undefined
        else if (opened === undefined) {
          inContact = false
          wasLost = true
          resume = undefined
          yield* report(result.failure)
        }
      } else if (worked) continue
      const asked = Result.isFailure(result) ? retryAfterMillis(result.failure) : 0
      yield* Effect.sleep(asked + Pace.backoff(retryMillis, failures, yield* Random.next))
    }
  })

  /** So that another can lead at once. A renewal may be under way still, hence the second attempt. */
  const release = Effect.gen(function*() {
    leadsUntil = -Infinity
    for (let attempts = 0; attempts < 2 && isOwn(); attempts++) {
      const lease = yield* Effect.fromOption(current())
      const { now } = yield* claim
      const result = yield* Effect.result(api.update(Lease.released(lease, now)))
      if (Result.isSuccess(result)) return yield* Effect.logInfo(`lease ${api.label}: given back`)
      if (result.failure._tag === "LeaseUnavailable") return yield* result.failure
      yield* reread
    }
  }).pipe(
    Effect.timeout(options.times.retryPeriod),
    Effect.catch((error) =>
      Effect.logWarning(
        `lease ${api.label}: not given back, it expires by itself: ${
          error._tag === "LeaseUnavailable" ? error.hint : error.message
        }`
      )
    )
  )

  // Before the fibers, so that it runs after they have stopped.
  yield* Effect.addFinalizer(() => release)
  yield* Background.keepRunning("watch of the lease", follow)
  yield* Background.keepRunning("campaign for the lease", campaign)

  return {
    leader: SubscriptionRef.changes(view).pipe(
      Stream.filter((view) => view._tag !== "Unread"),
      Stream.mapEffect((view) => view._tag === "Read" ? Effect.succeed(view.holder) : Effect.fail(view.error)),
      Stream.changes
    ),
    isLeader: Effect.map(monotonic, (now) => now < leadsUntil)
  }
})

const retryAfterMillis = (error: { readonly _tag: string } | LeaseUnavailable): number =>
  error instanceof LeaseUnavailable && error.retryAfter !== undefined ? Duration.toMillis(error.retryAfter) : 0
