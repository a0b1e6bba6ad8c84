/**
 * Asks peers until one answers: as the lookup names them, hedging to the next one if a first byte is late, and replacing one that
 * fails. `ResolvePolicy.schedule` says how long to wait. If only peers with objections are left, those are asked, for a short
 * time each. Losers are interrupted, and leave no connection.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { Duration, Effect, Option, Pull, Queue, Result, Schedule } from "effect"
import * as ContentId from "../../ContentId.ts"
import { PeerNotFound, ResolveTimeout } from "../../MirrorError.ts"
import type { Situation } from "../../ResolvePolicy.ts"
import type { Candidate } from "../mirror/Candidates.ts"
import * as Attempt from "./Attempt.ts"
import { PeerEvent, type PullPeers } from "./PullPeers.ts"

type Step = (now: number, situation: Situation) => Pull.Pull<[number, Duration.Duration], never, number>

/** The state of one race. */
class Race<A> {
  readonly peers: PullPeers
  /** The first byte wanted. */
  readonly start: number
  readonly use: Attempt.Use<A>
  readonly step: Step
  /** Until when to wait, by the schedule. */
  deadline = 0
  /** A peer was waited for until the deadline while none was being asked. */
  waited = false
  /** That wait was prolonged: peers with objections that are found meanwhile do not prolong it again. */
  prolonged = false

  constructor(peers: PullPeers, start: number, use: Attempt.Use<A>, step: Step) {
    this.peers = peers
    this.start = start
    this.use = use
    this.step = step
  }

  /** No peer is being asked. */
  get isIdle(): boolean {
    return this.peers.running.size === 0
  }

  /** Whether only peers with objections can be expected. */
  get #nobodyBetter(): boolean {
    const { looking, mayLookAgain, running } = this.peers
    return (this.waited || !looking) && !mayLookAgain &&
      ![...running].some(({ patienceMillis }) => patienceMillis === undefined)
  }

  /** The peer to ask now, if any: the first one, one in place of one that failed, or a hedge. */
  next(now: number): Candidate | undefined {
    const { candidates, left } = this.peers
    if (left <= 0 || !this.isIdle && now < this.deadline) return undefined
    // A machine that fails as one peer after another must not use up the pull before others are found.
    const newAddress = this.isIdle && this.peers.looking && !this.waited
    return candidates.next(now, { nobodyBetter: this.#nobodyBetter, newAddress })
  }
}

/** Asks peers until one answers. `start` is the first byte wanted. */
export const race = Effect.fnUntraced(function*<A>(
  peers: PullPeers,
  start: number,
  use: Attempt.Use<A>
): Effect.fn.Return<Attempt.Won<A>, PeerNotFound | ResolveTimeout> {
  const race = new Race(peers, start, use, yield* Schedule.toStep(peers.options.schedule))
  yield* setDeadline(race)
  while (true) {
    // A peer is chosen once all that has happened is known.
    const happened = yield* Queue.poll(peers.events)
    const event = Option.isSome(happened) ? happened : yield* proceed(race)
    if (Option.isNone(event)) continue
    peers.learn(event.value)
    // An attempt of a race that is over may end late.
    if (event.value._tag !== "AttemptEnded" || !peers.running.delete(event.value.attempt)) continue
    const { attempt, result } = event.value
    if (Result.isSuccess(result)) {
      yield* stopLosers(peers)
      return { ...attempt, value: result.success as A }
    }
    yield* Attempt.leave(peers, attempt, result.failure)
    race.waited = race.prolonged = false
    if (race.isIdle) yield* setDeadline(race)
  }
})

const setDeadline = Effect.fnUntraced(function*<A>(race: Race<A>) {
  const { left, running } = race.peers
  const now = yield* MonotonicTime.millis
  race.deadline = yield* race.step(now, { inFlight: running.size, left }).pipe(
    Effect.map(([, delay]) => now + Duration.toMillis(delay)),
    Pull.catchDone(() => Effect.succeed(Infinity))
  )
})

/** Asks the next peer; if there is none, waits for an event, looks for more peers, or gives up. */
const proceed = Effect.fnUntraced(function*<A>(
  race: Race<A>
): Effect.fn.Return<Option.Option<PeerEvent>, PeerNotFound | ResolveTimeout> {
  const { peers } = race
  const now = yield* MonotonicTime.millis
  const candidate = race.next(now)
  if (candidate !== undefined) yield* ask(race, candidate)
  else if (!race.isIdle) return yield* peers.takeWithin(now >= race.deadline ? Infinity : race.deadline - now)
  else if (peers.left <= 0 || !peers.looking) yield* lookAgain(peers)
  else if (race.waited) return yield* resolveTimeout(peers)
  else return yield* waitForPeer(race, now)
  return Option.none()
})

/** Asks a peer beside the race. The race gets an event when the attempt has ended. */
const ask = Effect.fnUntraced(function*<A>(race: Race<A>, candidate: Candidate) {
  const { isIdle, peers, start, use } = race
  peers.left--
  const attempt = yield* Attempt.open(peers, candidate, start, !isIdle)
  peers.running.add(attempt)
  yield* Attempt.run(attempt, use).pipe(
    Effect.result,
    Effect.flatMap((result) => Queue.offer(peers.events, PeerEvent.AttemptEnded({ attempt, result }))),
    Effect.forkIn(attempt.scope)
  )
  yield* setDeadline(race)
})

/** Waits for a peer while none is being asked. */
const waitForPeer = Effect.fnUntraced(function*<A>(race: Race<A>, now: number) {
  const { peers } = race
  const event = yield* peers.takeWithin(race.deadline - now)
  if (Option.isSome(event)) return event
  // A process that was held up, for example by its first requests, has not read yet what came meanwhile.
  const overdue = (yield* MonotonicTime.millis) - race.deadline
  if (overdue > 0 && !race.prolonged) {
    race.prolonged = true
    const late = yield* peers.takeWithin(Math.min(overdue, Duration.toMillis(peers.options.resolveTimeout)))
    if (Option.isSome(late)) return late
  }
  race.waited = true
  return Option.none<PeerEvent>()
})

/** Looks up peers once more, if those known are used up and that is allowed. */
const lookAgain = (peers: PullPeers) =>
  Effect.suspend(() => {
    const { content, record } = peers.options
    if (peers.left <= 0 || !peers.mayLookAgain) {
      return Effect.fail(new PeerNotFound({ content: ContentId.print(content), tried: record.failures }))
    }
    peers.mayLookAgain = false
    return peers.startLookup
  })

const resolveTimeout = ({ options: { content, record, resolveTimeout } }: PullPeers) =>
  Effect.fail(
    new ResolveTimeout({
      content: ContentId.print(content),
      waitedMillis: Duration.toMillis(resolveTimeout),
      tried: record.failures
    })
  )

/** Stops all that are being asked. They may be needed yet: the winner may fail in its body. */
const stopLosers = Effect.fnUntraced(function*(peers: PullPeers) {
  for (const loser of peers.running) {
    yield* Attempt.lose(peers, loser)
    peers.candidates.giveBack(loser.peer)
    peers.left++
  }
  peers.running.clear()
})
