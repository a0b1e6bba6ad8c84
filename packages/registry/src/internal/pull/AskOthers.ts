/** Asks further peers while one is in use already: to hear what they say of a tag, or to compare their throughput. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { Peer } from "@spegel-ts/router/Peer"
import { PeerStalled } from "@spegel-ts/transfer/PeerError"
import { Duration, Effect, Exit, Fiber, Option, Scope } from "effect"
import type { PeerError } from "../../MirrorError.ts"
import { Outcome } from "../../Outcome.ts"
import { nameOf } from "../mirror/PeerAnswer.ts"
import * as Attempt from "./Attempt.ts"
import type { PullPeers } from "./PullPeers.ts"

export interface AskAllOptions {
  /** How long to wait for all answers together. */
  readonly time: Duration.Duration
  /** Whether peers are asked that the lookup names in this time, or only those that it has named by now. */
  readonly awaitsLookup: boolean
}

/** What other peers said. */
export interface Others<A> {
  readonly answered: ReadonlyArray<Attempt.Won<A>>
  /** Those that said nothing in time, or nothing that can be used. One that is not there, or has nothing, is not among them. */
  readonly unanswered: ReadonlyArray<Peer>
}

/** An answer; or undefined if the peer cannot have one. */
type Heard<A> = { readonly attempt: Attempt.Attempt; readonly answer: Option.Option<A> } | undefined

/** Asks all other peers that may be asked, at once, and those of addresses that were not asked yet before others. */
export const all = Effect.fnUntraced(function*<A>(
  peers: PullPeers,
  { awaitsLookup, time }: AskAllOptions,
  use: Attempt.Use<A>
): Effect.fn.Return<Others<A>> {
  const deadline = (yield* MonotonicTime.millis) + Duration.toMillis(time)
  const asked: Array<Fiber.Fiber<Heard<A>>> = []
  yield* peers.learnAll
  while (true) {
    const now = yield* MonotonicTime.millis
    const isWaiting = awaitsLookup && peers.looking && peers.left > 0 && now < deadline
    const candidate = peers.left > 0
      ? peers.candidates.next(now, { nobodyBetter: false, newAddress: isWaiting })
      : undefined
    if (candidate !== undefined) {
      peers.left--
      const attempt = yield* Attempt.open(peers, candidate, 0, false)
      asked.push(yield* Effect.forkChild(hear(peers, attempt, deadline - now, use)))
    } else if (isWaiting) {
      const event = yield* peers.takeWithin(deadline - now)
      if (Option.isSome(event)) peers.learn(event.value)
    } else break
  }
  const heard = (yield* Fiber.joinAll(asked)).filter((one) => one !== undefined)
  return {
    answered: heard.flatMap(({ answer, attempt }) =>
      Option.isSome(answer) ? [{ ...attempt, value: answer.value }] : []
    ),
    unanswered: heard.flatMap(({ answer, attempt }) => Option.isNone(answer) ? [attempt.peer] : [])
  }
})

const hear = <A>(
  peers: PullPeers,
  attempt: Attempt.Attempt,
  millis: number,
  use: Attempt.Use<A>
): Effect.Effect<Heard<A>> =>
  Attempt.run(attempt, use).pipe(
    Effect.timeoutOption(millis),
    Effect.tap((answer) => Option.isNone(answer) ? Attempt.lose(peers, attempt) : Effect.void),
    Effect.map((answer) => ({ attempt, answer })),
    Effect.catch((error) =>
      Effect.as(
        Attempt.leave(peers, attempt, error),
        hasNone(error) ? undefined : { attempt, answer: Option.none<A>() }
      )
    )
  )

/** Whether a failure says that the peer does not hold what it was asked for. */
const hasNone = (error: PeerError): boolean =>
  error._tag === "PeerUnreachable" || error._tag === "PeerRefused" && error.status === 404

/** Asks one other peer that is known by now, if there is any. It may be asked again, and does not count as tried. */
export const one = Effect.fnUntraced(function*(peers: PullPeers, time: Duration.Duration, use: Attempt.Use<void>) {
  yield* peers.learnAll
  const candidate = peers.candidates.next(yield* MonotonicTime.millis, { nobodyBetter: false, newAddress: false })
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
