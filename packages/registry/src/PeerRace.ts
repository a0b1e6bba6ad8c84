/**
 * Finds who serves one request: peers are asked as the lookup names them, the next beside the first where its first
 * byte is late, the next instead of it where it fails. Losers are interrupted, and leave no connection.
 */
import type { Peer } from "@spegel-ts/router/Peer"
import { Duration, Effect, Exit, Option, Pull, Queue, Random, Result, Schedule, Scope, Stream } from "effect"
import type { Span } from "effect/Tracer"
import { type PeerError, PeerNotFound, ResolveTimeout, why } from "./MirrorError.ts"
import * as MonotonicTime from "./MonotonicTime.ts"
import { nameOf } from "./Offer.ts"
import type { PeerMemory } from "./PeerMemory.ts"
import type { AttemptEntry, PullRecord } from "./PullLedger.ts"
import * as PullSpans from "./PullSpans.ts"
import * as RegistryMetrics from "./RegistryMetrics.ts"

type Use<A> = (peer: Peer) => Effect.Effect<A, PeerError, Scope.Scope>

/** What the first peer to answer gave. */
export interface Won<A> {
  readonly peer: Peer
  readonly value: A
  /** Its entry in the record of the request. */
  readonly entry: AttemptEntry
  /** Closing it ends what the peer's answer opened. */
  readonly scope: Scope.Closeable
  readonly span: Option.Option<Span>
}

export interface PeerRace {
  /** Asks peers until one answers, none again that has failed; `start` is the byte from which. */
  readonly race: <A>(start: number, use: Use<A>) => Effect.Effect<Won<A>, PeerNotFound | ResolveTimeout>
  /** Asks more of the peers known by now, all at once; gives those that answered in time. */
  readonly beside: <A>(time: Duration.Duration, use: Use<A>) => Effect.Effect<ReadonlyArray<Won<A>>>
  /** What was won has failed after all. */
  readonly leave: (won: Won<unknown>, error: PeerError) => Effect.Effect<void>
  /** Whether a peer has failed so far, other than by refusing. */
  readonly broke: () => boolean
  /** As many may be asked again as at first, and looked up anew where those known are used up. */
  readonly renew: Effect.Effect<void>
}

type Running = Omit<Won<unknown>, "value">

type Event =
  | { readonly _tag: "Found"; readonly peer: Peer }
  | { readonly _tag: "LookupEnded" }
  | { readonly _tag: "Outcome"; readonly running: Running; readonly result: Result.Result<unknown, PeerError> }

export const make = Effect.fnUntraced(function*(options: {
  readonly content: string
  /** Who is said to have the content, at most so many. */
  readonly lookup: (count: number) => Stream.Stream<Peer>
  readonly memory: PeerMemory
  readonly record: PullRecord
  /** How many may be asked. */
  readonly retries: number
  /** How long to wait for a peer while none is being asked. */
  readonly resolveTimeout: Duration.Duration
  /** Its delays say when one more peer is asked beside those whose first byte is late; its end, that none is. */
  readonly hedging: Schedule.Schedule<unknown>
}) {
  const { content, hedging, lookup, memory, record, retries } = options
  const resolveMillis = Duration.toMillis(options.resolveTimeout)
  const whole = yield* Effect.scope
  const random = yield* Random.Random
  const events = yield* Queue.unbounded<Event>()
  const takeWithin = (millis: number) => Queue.take(events).pipe(Effect.timeoutOption(millis))
  const seen = new Set<string>()
  const known: Array<Peer> = []
  let looking = false
  let mayLookAgain = false
  let left = retries
  let broke = false

  /** More than may be asked: some may be known to fail, and of those that are not the less busy is chosen. */
  const look = Effect.suspend(() => {
    looking = true
    return lookup(seen.size + 2 * retries).pipe(
      Stream.runForEach((peer) => Queue.offer(events, { _tag: "Found", peer })),
      Effect.ensuring(Queue.offer(events, { _tag: "LookupEnded" })),
      Effect.forkIn(whole)
    )
  })
  yield* look

  const learn = (event: Event) => {
    if (event._tag === "LookupEnded") looking = false
    if (event._tag !== "Found" || seen.has(event.peer.id)) return
    seen.add(event.peer.id)
    record.peersSeen++
    known.push(event.peer)
  }

  const entryOf = (peer: Peer, start: number, hedge: boolean, outcome: string) =>
    record.begin({
      peer: peer.id,
      address: nameOf(peer),
      start,
      hedge,
      firstByteMillis: undefined,
      bytes: 0,
      outcome
    })

  /** The next peer against which nothing is known. */
  const choose = Effect.fnUntraced(function*(start: number) {
    while (known.length > 0) {
      const now = yield* MonotonicTime.millis
      const [peer] = known.splice(memory.choose(known, () => random.nextDoubleUnsafe(), now), 1)
      if (peer === undefined) break
      const objection = memory.objection(peer, content, now)
      if (objection === undefined) return peer
      entryOf(peer, start, false, `not asked: it ${objection}`)
    }
    return undefined
  })

  /** Asks a peer in a scope of its own. */
  const open = Effect.fnUntraced(function*(peer: Peer, start: number, hedge: boolean) {
    const scope = yield* Scope.fork(whole)
    memory.busy(peer, 1)
    yield* Scope.addFinalizer(scope, Effect.sync(() => memory.busy(peer, -1)))
    const entry = entryOf(peer, start, hedge, "no answer in time")
    return { peer, scope, entry, span: yield* PullSpans.attempt(scope, peer, entry) } satisfies Running
  })

  const run = Effect.fnUntraced(function*<A>({ entry, peer, scope, span }: Running, use: Use<A>) {
    const begun = yield* MonotonicTime.millis
    return yield* PullSpans.within(span, use(peer)).pipe(
      Scope.provide(scope),
      Effect.tap(() =>
        Effect.map(MonotonicTime.millis, (now) => {
          entry.firstByteMillis = now - begun
          memory.answered(now - begun)
        })
      )
    )
  })

  const leave = Effect.fnUntraced(function*({ entry, peer, scope }: Running, error: PeerError) {
    entry.outcome = why(error)
    // Its connection is let go of before another is opened.
    yield* Scope.close(scope, Exit.fail(error))
    if (error._tag !== "PeerRefused" && error._tag !== "PeerSuspected") {
      broke = true
      record.peersFailed++
    }
    memory.failed(peer, content, error, yield* MonotonicTime.millis)
    yield* RegistryMetrics.peerFailed(error._tag)
    yield* Effect.logDebug(error.message)
  })

  /** Another was sooner. */
  const lose = Effect.fnUntraced(function*({ entry, peer, scope }: Running) {
    entry.outcome = "later than another"
    memory.lost(peer, yield* MonotonicTime.millis)
    yield* Scope.close(scope, Exit.void)
  })

  const race = Effect.fnUntraced(function*<A>(start: number, use: Use<A>) {
    const running = new Set<Running>()
    const pace = yield* Schedule.toStep(hedging)
    let hedgeAt = Infinity
    let idleSince = yield* MonotonicTime.millis
    /** Whether the wait was prolonged already: peers that are found meanwhile and objected to do not do so again. */
    let prolonged = false
    while (true) {
      // Whatever is known by now is chosen from.
      let event = yield* Queue.poll(events)
      if (Option.isNone(event)) {
        const now = yield* MonotonicTime.millis
        const late = now >= hedgeAt
        if (left > 0 && known.length > 0 && (running.size === 0 || late)) {
          const peer = yield* choose(start)
          if (peer === undefined) continue
          left--
          const next = yield* open(peer, start, running.size > 0)
          running.add(next)
          yield* run(next, use).pipe(
            Effect.result,
            Effect.flatMap((result) => Queue.offer(events, { _tag: "Outcome", running: next, result })),
            Effect.forkIn(next.scope)
          )
          hedgeAt = yield* pace(now, undefined).pipe(
            Effect.map(([, delay]) => now + Duration.toMillis(delay)),
            Pull.catchDone(() => Effect.succeed(Infinity))
          )
          continue
        }
        if (running.size === 0 && (left <= 0 || !looking)) {
          if (left <= 0 || !mayLookAgain) return yield* new PeerNotFound({ content, tried: record.failures })
          mayLookAgain = false
          yield* look
          continue
        }
        const until = running.size === 0 ? idleSince + resolveMillis : late ? Infinity : hedgeAt
        event = yield* takeWithin(until - now)
        if (Option.isNone(event)) {
          if (running.size > 0) continue
          // Where this process was held up itself, as by its first requests, it has yet to read what came meanwhile.
          const overdue = (yield* MonotonicTime.millis) - until
          if (overdue > 0 && !prolonged) {
            prolonged = true
            event = yield* takeWithin(Math.min(overdue, resolveMillis))
          }
        }
        if (Option.isNone(event)) {
          return yield* new ResolveTimeout({ content, waitedMillis: resolveMillis, tried: record.failures })
        }
      }
      const happened = event.value
      learn(happened)
      // An attempt of a race that is over may tell of itself late.
      if (happened._tag !== "Outcome" || !running.delete(happened.running)) continue
      if (Result.isSuccess(happened.result)) {
        for (const loser of running) {
          yield* lose(loser)
          // It may be needed yet: whoever won may fail in its body.
          known.push(loser.peer)
          left++
        }
        return { ...happened.running, value: happened.result.success as A } satisfies Won<A>
      }
      yield* leave(happened.running, happened.result.failure)
      idleSince = yield* MonotonicTime.millis
      prolonged = false
    }
  })

  const beside = Effect.fnUntraced(function*<A>(time: Duration.Duration, use: Use<A>) {
    const more: Array<Running> = []
    for (const event of yield* Queue.clear(events)) learn(event)
    while (left > 0) {
      const peer = yield* choose(0)
      if (peer === undefined) break
      left--
      more.push(yield* open(peer, 0, false))
    }
    const answers = yield* Effect.forEach(
      more,
      (running) =>
        run(running, use).pipe(
          Effect.map((value) => ({ ...running, value })),
          Effect.timeoutOption(time),
          Effect.tap((answer) => Option.isNone(answer) ? lose(running) : Effect.void),
          Effect.catch((error) => Effect.as(leave(running, error), Option.none()))
        ),
      { concurrency: "unbounded" }
    )
    return answers.flatMap(Option.toArray)
  })

  return {
    race,
    beside,
    leave,
    broke: () => broke,
    renew: Effect.sync(() => {
      left = retries
      mayLookAgain = true
    })
  } satisfies PeerRace
})
