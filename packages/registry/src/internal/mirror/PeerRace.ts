/**
 * Finds who serves one request: peers are asked as the lookup names them, the next beside the first where its first
 * byte is late, the next instead of it where it fails. Where only peers are left against which something speaks, those
 * are asked, for a short time each. Losers are interrupted, and leave no connection.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { Peer } from "@spegel-ts/router/Peer"
import type { RouterNotReady } from "@spegel-ts/router/Router"
import { PeerStalled } from "@spegel-ts/transfer/PeerError"
import { Duration, Effect, Exit, Option, Pull, Queue, Random, Result, Schedule, Scope, Stream } from "effect"
import type { Span } from "effect/Tracer"
import { type PeerError, PeerNotFound, ResolveTimeout, why } from "../../MirrorError.ts"
import * as PeerSpans from "../observe/PeerSpans.ts"
import type { AttemptEntry, PullRecord } from "../observe/PullRecord.ts"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import { type Candidate, Candidates } from "./Candidates.ts"
import { nameOf } from "./PeerAnswer.ts"
import type { PeerMemory } from "./PeerMemory.ts"

/** One peer being asked. */
export interface Attempt {
  readonly peer: Peer
  /** How long it may be silent, in milliseconds, where something speaks against it. */
  readonly patienceMillis: number | undefined
  /** Its entry in the record of the request. */
  readonly entry: AttemptEntry
  /** Closing it ends what the peer's answer opened. */
  readonly scope: Scope.Closeable
  readonly span: Option.Option<Span>
  /** When it began, as `MonotonicTime.millis` has it. */
  readonly begun: number
}

export type Use<A> = (attempt: Attempt) => Effect.Effect<A, PeerError, Scope.Scope>

/** What the first peer to answer gave. */
export interface Won<A> extends Attempt {
  readonly value: A
}

export interface PeerRace {
  /** Asks peers until one answers; `start` is the first byte wanted. */
  readonly race: <A>(start: number, use: Use<A>) => Effect.Effect<Won<A>, PeerNotFound | ResolveTimeout>
  /** Asks more of the peers known by now, all at once; gives those that answered in time. */
  readonly beside: <A>(time: Duration.Duration, use: Use<A>) => Effect.Effect<ReadonlyArray<Won<A>>>
  /** Asks one of the peers known by now beside whoever won, within some time; it may be asked again. */
  readonly sample: (time: Duration.Duration, use: Use<void>) => Effect.Effect<void>
  /** Notes that the first byte of an attempt is here. */
  readonly answered: (attempt: Attempt) => Effect.Effect<void>
  /** What was won has failed after all. */
  readonly leave: (won: Won<unknown>, error: PeerError) => Effect.Effect<void>
  /** Leaves those that are being asked: the time for an answer is over. */
  readonly leaveAll: (waitedMillis: number) => Effect.Effect<void>
  /** Whether a peer of which nothing bad was known has kept this request waiting in vain. */
  readonly lostTime: () => boolean
  /** Whether a peer is known that was not asked yet, and against which nothing speaks. */
  readonly hasAnother: (now: number) => boolean
  /** As many may be asked again as at first, and looked up anew where those known are used up. */
  readonly renew: Effect.Effect<void>
}

type Event =
  | { readonly _tag: "Found"; readonly peer: Peer }
  | { readonly _tag: "LookupEnded" }
  | { readonly _tag: "Outcome"; readonly attempt: Attempt; readonly result: Result.Result<unknown, PeerError> }

/** After such a failure the peer may be well soon; others are its answer. */
const mayComeBack = ({ _tag }: PeerError): boolean =>
  _tag === "PeerUnreachable" || _tag === "PeerDisconnected" || _tag === "PeerStalled" || _tag === "PeerSlow"

export interface PeerRaceOptions {
  readonly content: string
  /** Who is said to have the content, at most so many. */
  readonly lookup: (count: number) => Stream.Stream<Peer, RouterNotReady>
  readonly memory: PeerMemory
  /** Why no peer is to keep this request waiting for long, if so. */
  readonly caution: string | undefined
  readonly record: PullRecord
  /** How many may be asked. */
  readonly retries: number
  /** How long to wait for a peer while none is being asked. */
  readonly resolveTimeout: Duration.Duration
  /** Its delays say when one more peer is asked beside those whose first byte is late; its end, that none is. */
  readonly hedging: Schedule.Schedule<unknown>
}

/**
 * The state of one request. What is done with it are functions of this module and not closures of `make`: all that the
 * closure of a generator function refers to is kept until V8's next major collection once it has run (its generators'
 * hidden class is in the old generation from the start), and those collections are what made requests late.
 */
class Racers {
  readonly options: PeerRaceOptions
  /** The request's scope. */
  readonly whole: Scope.Scope
  readonly events: Queue.Queue<Event>
  readonly candidates: Candidates
  readonly running = new Set<Attempt>()
  readonly #seen = new Set<string>()
  looking = false
  mayLookAgain = false
  /** How many may be asked yet. */
  left: number
  lostTime = false

  constructor(options: PeerRaceOptions, whole: Scope.Scope, events: Queue.Queue<Event>, random: () => number) {
    this.options = options
    this.whole = whole
    this.events = events
    this.left = options.retries
    const { caution, content, memory } = options
    this.candidates = new Candidates({
      content,
      memory,
      caution,
      random,
      onPassedOver: (peer, reason) => this.entryOf(peer, 0, false, `asked after others, if at all: it ${reason}`)
    })
  }

  /** Looks for more than may be asked: some may be known to fail, and of those that are not the less busy is chosen. */
  get look(): Effect.Effect<unknown> {
    return Effect.suspend(() => {
      this.looking = true
      return this.options.lookup(this.#seen.size + 2 * this.options.retries).pipe(
        Stream.runForEach((peer) => Queue.offer(this.events, { _tag: "Found", peer })),
        Effect.catch((error) => Effect.logDebug(error.message)),
        Effect.ensuring(Queue.offer(this.events, { _tag: "LookupEnded" })),
        Effect.forkIn(this.whole)
      )
    })
  }

  learn(event: Event): void {
    if (event._tag === "LookupEnded") this.looking = false
    if (event._tag !== "Found" || this.#seen.has(event.peer.id)) return
    this.#seen.add(event.peer.id)
    this.options.record.peersSeen++
    this.candidates.add(event.peer)
  }

  entryOf(peer: Peer, start: number, hedge: boolean, outcome: string): AttemptEntry {
    return this.options.record.begin({
      peer: peer.id,
      address: nameOf(peer),
      start,
      hedge,
      firstByteMillis: undefined,
      bytes: 0,
      outcome
    })
  }

  takeWithin(millis: number): Effect.Effect<Option.Option<Event>> {
    return Queue.take(this.events).pipe(Effect.timeoutOption(millis))
  }

  /** The first byte of an attempt is here. */
  answered({ begun, entry }: Attempt): Effect.Effect<void> {
    return Effect.map(MonotonicTime.millis, (now) => {
      entry.firstByteMillis = now - begun
      this.options.memory.answered(now - begun)
    })
  }
}

export const make = Effect.fnUntraced(function*(options: PeerRaceOptions) {
  const random = yield* Random.Random
  const events = yield* Queue.unbounded<Event>()
  const racers = new Racers(options, yield* Effect.scope, events, () => random.nextDoubleUnsafe())
  yield* racers.look
  return {
    race: (start, use) => race(racers, start, use),
    beside: (time, use) => beside(racers, time, use),
    sample: (time, use) => sample(racers, time, use),
    answered: (attempt) => racers.answered(attempt),
    leave: (won, error) => leave(racers, won, error),
    leaveAll: (waitedMillis) => leaveAll(racers, waitedMillis),
    lostTime: () => racers.lostTime,
    hasAnother: (now) => racers.left > 0 && racers.candidates.hasGood(now),
    renew: Effect.sync(() => {
      racers.left = options.retries
      racers.mayLookAgain = true
    })
  } satisfies PeerRace
})

/** Asks a peer in a scope of its own. */
const open = Effect.fnUntraced(
  function*(racers: Racers, { patienceMillis, peer }: Candidate, start: number, hedge: boolean) {
    const { memory } = racers.options
    const scope = yield* Scope.fork(racers.whole)
    memory.busy(peer, 1)
    yield* Scope.addFinalizer(scope, Effect.sync(() => memory.busy(peer, -1)))
    const entry = racers.entryOf(peer, start, hedge, "no answer in time")
    const span = yield* PeerSpans.attempt(scope, peer, entry)
    return { peer, patienceMillis, scope, entry, span, begun: yield* MonotonicTime.millis } satisfies Attempt
  }
)

const run = <A>(attempt: Attempt, use: Use<A>) =>
  PeerSpans.within(attempt.span, use(attempt)).pipe(Scope.provide(attempt.scope))

const leave = Effect.fnUntraced(
  function*(racers: Racers, { entry, patienceMillis, peer, scope }: Attempt, error: PeerError) {
    const { content, memory, record } = racers.options
    entry.outcome = why(error)
    // Its connection is let go of before another is opened.
    yield* Scope.close(scope, Exit.fail(error))
    const now = yield* MonotonicTime.millis
    memory.failed(peer, content, error, now)
    if (error._tag !== "PeerRefused") record.peersFailed++
    if (error._tag === "PeerStalled" || error._tag === "PeerSlow") {
      if (patienceMillis === undefined) racers.lostTime = true
      else memory.patience.spend(error.waitedMillis, now)
    }
    if (mayComeBack(error)) racers.candidates.addFailed(peer, now)
    yield* RegistryMetrics.peerFailed(error._tag)
    yield* Effect.logDebug(error.message)
  }
)

/** Another was sooner. */
const lose = Effect.fnUntraced(function*({ options: { memory } }: Racers, { entry, peer, scope }: Attempt) {
  entry.outcome = "later than another"
  memory.lost(peer, yield* MonotonicTime.millis)
  yield* Scope.close(scope, Exit.void)
})

const leaveAll = Effect.fnUntraced(function*(racers: Racers, waitedMillis: number) {
  for (const late of racers.running) {
    yield* leave(racers, late, new PeerStalled({ peer: nameOf(late.peer), waitedMillis }))
  }
  racers.running.clear()
})

const race = Effect.fnUntraced(function*<A>(racers: Racers, start: number, use: Use<A>) {
  const { candidates, events, options, running } = racers
  const resolveMillis = Duration.toMillis(options.resolveTimeout)
  const pace = yield* Schedule.toStep(options.hedging)
  let hedgeAt = Infinity
  let idleSince = yield* MonotonicTime.millis
  /** Whether peers were looked for as long as may be while none was asked. */
  let waited = false
  /** Whether the wait was prolonged already: peers that are found meanwhile and objected to do not do so again. */
  let prolonged = false
  while (true) {
    // Whatever is known by now is chosen from.
    let event = yield* Queue.poll(events)
    if (Option.isNone(event)) {
      const now = yield* MonotonicTime.millis
      const idle = running.size === 0
      const late = now >= hedgeAt
      const nobodyBetter = (waited || !racers.looking) && !racers.mayLookAgain &&
        ![...running].some(({ patienceMillis }) => patienceMillis === undefined)
      const candidate = racers.left > 0 && (idle || late) ? candidates.next(now, nobodyBetter) : undefined
      if (candidate !== undefined) {
        racers.left--
        const next = yield* open(racers, candidate, start, !idle)
        running.add(next)
        yield* run(next, use).pipe(
          Effect.result,
          Effect.flatMap((result) => Queue.offer(events, { _tag: "Outcome", attempt: next, result })),
          Effect.forkIn(next.scope)
        )
        hedgeAt = yield* pace(now, undefined).pipe(
          Effect.map(([, delay]) => now + Duration.toMillis(delay)),
          Pull.catchDone(() => Effect.succeed(Infinity))
        )
        continue
      }
      if (idle && (racers.left <= 0 || !racers.looking)) {
        if (racers.left <= 0 || !racers.mayLookAgain) {
          return yield* new PeerNotFound({ content: options.content, tried: options.record.failures })
        }
        racers.mayLookAgain = false
        yield* racers.look
        continue
      }
      if (idle && waited) {
        return yield* new ResolveTimeout({
          content: options.content,
          waitedMillis: resolveMillis,
          tried: options.record.failures
        })
      }
      const until = idle ? idleSince + resolveMillis : late ? Infinity : hedgeAt
      event = yield* racers.takeWithin(until - now)
      if (Option.isNone(event)) {
        if (!idle) continue
        // Where this process was held up itself, as by its first requests, it has yet to read what came meanwhile.
        const overdue = (yield* MonotonicTime.millis) - until
        if (overdue > 0 && !prolonged) {
          prolonged = true
          event = yield* racers.takeWithin(Math.min(overdue, resolveMillis))
        }
      }
      if (Option.isNone(event)) {
        waited = true
        continue
      }
    }
    const happened = event.value
    racers.learn(happened)
    // An attempt of a race that is over may tell of itself late.
    if (happened._tag !== "Outcome" || !running.delete(happened.attempt)) continue
    if (Result.isSuccess(happened.result)) {
      for (const loser of running) {
        yield* lose(racers, loser)
        // It may be needed yet: whoever won may fail in its body.
        candidates.add(loser.peer)
        racers.left++
      }
      running.clear()
      return { ...happened.attempt, value: happened.result.success as A } satisfies Won<A>
    }
    yield* leave(racers, happened.attempt, happened.result.failure)
    idleSince = yield* MonotonicTime.millis
    waited = prolonged = false
  }
})

const beside = Effect.fnUntraced(function*<A>(racers: Racers, time: Duration.Duration, use: Use<A>) {
  const more: Array<Attempt> = []
  for (const event of yield* Queue.clear(racers.events)) racers.learn(event)
  while (racers.left > 0) {
    const candidate = racers.candidates.next(yield* MonotonicTime.millis, false)
    if (candidate === undefined) break
    racers.left--
    more.push(yield* open(racers, candidate, 0, false))
  }
  const answers = yield* Effect.forEach(
    more,
    (running) =>
      run(running, use).pipe(
        Effect.map((value) => ({ ...running, value })),
        Effect.timeoutOption(time),
        Effect.tap((answer) => Option.isNone(answer) ? lose(racers, running) : Effect.void),
        Effect.catch((error) => Effect.as(leave(racers, running, error), Option.none()))
      ),
    { concurrency: "unbounded" }
  )
  return answers.flatMap(Option.toArray)
})

const sample = Effect.fnUntraced(function*(racers: Racers, time: Duration.Duration, use: Use<void>) {
  for (const event of yield* Queue.clear(racers.events)) racers.learn(event)
  const candidate = racers.candidates.next(yield* MonotonicTime.millis, false)
  if (candidate === undefined) return
  const attempt = yield* open(racers, candidate, 0, true)
  yield* run(attempt, use).pipe(
    Effect.timeoutOrElse({
      duration: time,
      orElse: () => Effect.fail(new PeerStalled({ peer: nameOf(attempt.peer), waitedMillis: Duration.toMillis(time) }))
    }),
    Effect.matchEffect({
      onFailure: (error) => leave(racers, attempt, error),
      onSuccess: () =>
        Effect.suspend(() => {
          attempt.entry.outcome = "asked to compare its speed"
          racers.candidates.add(attempt.peer)
          return Scope.close(attempt.scope, Exit.void)
        })
    })
  )
})
