/** Asks further peers while one is in use already: to hear what they say of a tag, or to compare their throughput. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { PeerStalled } from "@spegel-ts/transfer/PeerError"
import { Duration, Effect, Exit, Option, Scope } from "effect"
import { Outcome } from "../../Outcome.ts"
import { nameOf } from "../mirror/PeerAnswer.ts"
import * as Attempt from "./Attempt.ts"
import type { PullPeers } from "./PullPeers.ts"

/** Asks all other peers that are known by now and may be asked, at once. Returns those that answered in time. */
export const all = Effect.fnUntraced(function*<A>(peers: PullPeers, time: Duration.Duration, use: Attempt.Use<A>) {
  yield* peers.learnAll
  const asked: Array<Attempt.Attempt> = []
  while (peers.left > 0) {
    const candidate = peers.candidates.next(yield* MonotonicTime.millis, false)
    if (candidate === undefined) break
    peers.left--
    asked.push(yield* Attempt.open(peers, candidate, 0, false))
  }
  const answers = yield* Effect.forEach(asked, (attempt) => within(peers, time, attempt, use), {
    concurrency: "unbounded"
  })
  return answers.flatMap(Option.toArray)
})

const within = <A>(
  peers: PullPeers,
  time: Duration.Duration,
  attempt: Attempt.Attempt,
  use: Attempt.Use<A>
): Effect.Effect<Option.Option<Attempt.Won<A>>> =>
  Attempt.run(attempt, use).pipe(
    Effect.map((value) => ({ ...attempt, value })),
    Effect.timeoutOption(time),
    Effect.tap((answer) => Option.isNone(answer) ? Attempt.lose(peers, attempt) : Effect.void),
    Effect.catch((error) => Effect.as(Attempt.leave(peers, attempt, error), Option.none()))
  )

/** Asks one other peer that is known by now, if there is any. It may be asked again, and does not count as tried. */
export const one = Effect.fnUntraced(function*(peers: PullPeers, time: Duration.Duration, use: Attempt.Use<void>) {
  yield* peers.learnAll
  const candidate = peers.candidates.next(yield* MonotonicTime.millis, false)
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
    peers.candidates.add(peer)
    return Scope.close(scope, Exit.void)
  })
