/** Asks further peers while one is in use already: to hear what they say of a tag, or to compare their throughput. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { Peer } from "@spegel-ts/router/Peer"
import { PeerStalled } from "@spegel-ts/transfer/PeerError"
import { Duration, Effect, Exit, Option, Queue, Result, Scope } from "effect"
import { isMiss, type PeerError } from "../../MirrorError.ts"
import { Outcome } from "../../Outcome.ts"
import type { Candidate, Expectations } from "../mirror/Candidates.ts"
import * as PeerAddress from "../mirror/PeerAddress.ts"
import { nameOf } from "../mirror/PeerAnswer.ts"
import * as Attempt from "./Attempt.ts"
import { PeerEvent, type PullPeers } from "./PullPeers.ts"

export interface AskAllOptions {
  /** The peer in use, at the address that answered. */
  readonly first: Peer
  /** How long to wait for all answers together. */
  readonly time: Duration.Duration
  /**
   * Whether as many are heard as may be asked in a whole pull, and at least two, if the network has them. So peers are asked that
   * the lookup names in this time too, those with objections as well, and others in place of those that have nothing to add. Otherwise,
   * those without objections are asked that the lookup has named by now, as many as the pull may ask yet.
   */
  readonly thoroughly: boolean
}

/** An answer of a peer, at the address that answered. */
interface FromPeer {
  readonly peer: Peer
}

/** What other peers said. */
export interface Others<A> {
  readonly answered: ReadonlyArray<Attempt.Won<A>>
  /**
   * Those that said nothing in time, or nothing that can be used; with `thoroughly` also those that could not be asked in time
   * though too few were heard. One that is not there, or has nothing, is not among them.
   */
  readonly unanswered: ReadonlyArray<Peer>
}

/** Asks a peer without an objection, whether or not its address was asked before. */
const withoutObjection: Expectations = { nobodyBetter: false, newAddress: false }
/** How many others are heard at least: one machine is never the majority of three. */
const minWitnesses = 2
/** How many others are asked in place of those that have nothing to add. One machine may be sixteen peers. */
const maxReplaced = 16

/** The questions of one call of `all`. */
class Asking<A extends FromPeer> {
  readonly peers: PullPeers
  readonly use: Attempt.Use<A>
  readonly options: AskAllOptions
  /** As `MonotonicTime.millis` has it. */
  readonly deadline: number
  readonly answered: Array<Attempt.Won<A>> = []
  readonly unanswered: Array<Peer> = []
  pending = 0
  /** Nobody else is asked any more. */
  isClosed = false
  /** The addresses that have answered. */
  readonly #heard: Set<string>
  #replaced = 0

  constructor(peers: PullPeers, use: Attempt.Use<A>, options: AskAllOptions, begun: number) {
    this.peers = peers
    this.use = use
    this.options = options
    this.deadline = begun + Duration.toMillis(options.time)
    this.#heard = new Set([PeerAddress.of(options.first)])
    if (options.thoroughly) peers.left = Math.max(peers.left, peers.options.retries - 1, minWitnesses)
  }

  /** Whether the lookup may name another one in time. */
  isExpecting(now: number): boolean {
    const { left, looking } = this.peers
    return this.options.thoroughly && looking && left > 0 && now < this.deadline
  }

  /** The peer to ask now, if any. */
  next(now: number): Candidate | undefined {
    const { candidates, left } = this.peers
    if (left <= 0 || this.isClosed || now >= this.deadline) return undefined
    return this.options.thoroughly
      ? candidates.nextWitness(now, this.isExpecting(now))
      : candidates.next(now, withoutObjection)
  }

  /** A peer has nothing to add: another one may be asked in its place. */
  replace(): void {
    if (this.options.thoroughly && this.#replaced++ < maxReplaced) this.peers.left++
  }

  answers(answer: Attempt.Won<A>): void {
    const address = PeerAddress.of(answer.value.peer)
    if (this.#heard.has(address)) this.replace()
    this.#heard.add(address)
    this.answered.push(answer)
  }

  /** The time is over, or there is nobody left to ask. */
  end(now: number): Others<A> {
    const { peers: { candidates, left }, unanswered } = this
    const isShort = this.options.thoroughly && left > 0
    return { answered: this.answered, unanswered: isShort ? [...unanswered, ...candidates.left(now)] : unanswered }
  }
}

/** Asks all other peers that may be asked, at once, and those of addresses that were not asked yet before others. */
export const all = Effect.fnUntraced(function*<A extends FromPeer>(
  peers: PullPeers,
  options: AskAllOptions,
  use: Attempt.Use<A>
): Effect.fn.Return<Others<A>> {
  const asking = new Asking(peers, use, options, yield* MonotonicTime.millis)
  yield* peers.learnAll
  while (true) {
    const now = yield* MonotonicTime.millis
    const isExpecting = asking.isExpecting(now)
    const candidate = asking.next(now)
    if (candidate !== undefined) yield* ask(asking, candidate, now)
    else if (isExpecting || asking.pending > 0) {
      asking.isClosed = !options.thoroughly
      // A question ends at the deadline, and with an event.
      const event = yield* peers.takeWithin(asking.pending > 0 ? Infinity : asking.deadline - now)
      if (Option.isSome(event)) peers.learn(event.value)
    } else return asking.end(now)
  }
})

const ask = Effect.fnUntraced(function*<A extends FromPeer>(asking: Asking<A>, candidate: Candidate, now: number) {
  const { deadline, peers } = asking
  peers.left--
  asking.pending++
  const attempt = yield* Attempt.open(peers, candidate, 0, false)
  yield* hear(asking, attempt, deadline - now).pipe(
    Effect.flatMap((result) => {
      asking.pending--
      return Queue.offer(peers.events, PeerEvent.AttemptEnded({ attempt, result }))
    }),
    Effect.forkChild
  )
})

/** Notes what a peer answers within so many milliseconds. */
const hear = Effect.fnUntraced(
  function*<A extends FromPeer>(asking: Asking<A>, attempt: Attempt.Attempt, millis: number) {
    const { peers, unanswered, use } = asking
    const result = yield* Attempt.run(attempt, use).pipe(Effect.timeoutOption(millis), Effect.result)
    if (Result.isFailure(result)) {
      yield* Attempt.leave(peers, attempt, result.failure)
      if (hasNothing(result.failure)) asking.replace()
      else unanswered.push(attempt.peer)
    } else if (Option.isNone(result.success)) {
      yield* Attempt.lose(peers, attempt)
      unanswered.push(attempt.peer)
    } else asking.answers({ ...attempt, value: result.success.value })
    return result
  }
)

/** Whether a failure says that the peer does not hold what it was asked for. */
const hasNothing = (error: PeerError): boolean => error._tag === "PeerUnreachable" || isMiss(error)

/** Asks one other peer that is known by now, if there is any. It may be asked again, and does not count as tried. */
export const one = Effect.fnUntraced(function*(peers: PullPeers, time: Duration.Duration, use: Attempt.Use<void>) {
  yield* peers.learnAll
  const candidate = peers.candidates.next(yield* MonotonicTime.millis, withoutObjection)
  if (candidate === undefined) return
  const attempt = yield* Attempt.open(peers, candidate, 0, true)
  yield* Attempt.run(attempt, use).pipe(
    Effect.timeoutOrElse({
      duration: time,
      orElse: () => Effect.fail(new PeerStalled({ peer: nameOf(attempt.peer), waitedMillis: Duration.toMillis(time) }))
    }),
    Effect.matchEffect({
      onFailure: (error) => Attempt.leave(peers, attempt, error),
      onSuccess: () => endComparison(peers, attempt)
    })
  )
})

const endComparison = (peers: PullPeers, { entry, peer, scope }: Attempt.Attempt) =>
  Effect.suspend(() => {
    entry.outcome = Outcome.Compared()
    peers.candidates.giveBack(peer)
    return Scope.close(scope, Exit.void)
  })
