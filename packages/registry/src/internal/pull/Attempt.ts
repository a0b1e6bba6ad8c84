/** One peer being asked in a pull: the beginning of the attempt, and its end if the peer does not serve. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { PeerStalled } from "@spegel-ts/transfer/PeerError"
import { Effect, Exit, type Option, Scope } from "effect"
import type { Span } from "effect/Tracer"
import { isMiss, type PeerError, why } from "../../MirrorError.ts"
import { Outcome } from "../../Outcome.ts"
import type { Candidate } from "../mirror/Candidates.ts"
import { nameOf } from "../mirror/PeerAnswer.ts"
import * as PeerSpans from "../observe/PeerSpans.ts"
import type { AttemptEntry } from "../observe/PullRecord.ts"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import type { PullPeers } from "./PullPeers.ts"

export interface Attempt extends Candidate {
  /** Its entry in the record of the pull. */
  readonly entry: AttemptEntry
  /** Closing it ends what the peer's answer opened. */
  readonly scope: Scope.Closeable
  readonly span: Option.Option<Span>
  /** When it began, as `MonotonicTime.millis` has it. */
  readonly begun: number
}

/** Asks the peer of an attempt. A failure ends the attempt. */
export type Use<A> = (attempt: Attempt) => Effect.Effect<A, PeerError, Scope.Scope>

/** An attempt that succeeded, and what it gave. */
export interface Won<A> extends Attempt {
  readonly value: A
}

/** Begins to ask a peer, in a scope of its own. `start` is the first byte wanted. */
export const open = Effect.fnUntraced(
  function*(peers: PullPeers, { patienceMillis, peer }: Candidate, start: number, hedge: boolean) {
    const { memory } = peers.options
    const scope = yield* Scope.fork(peers.scope)
    memory.busy(peer, 1)
    yield* Scope.addFinalizer(scope, Effect.sync(() => memory.busy(peer, -1)))
    const entry = peers.entryOf(peer, start, hedge, Outcome.Unanswered())
    const span = yield* PeerSpans.attempt(scope, peer, entry)
    return { peer, patienceMillis, scope, entry, span, begun: yield* MonotonicTime.millis } satisfies Attempt
  }
)

/** Does `use` in the attempt's scope and span. */
export const run = <A>(attempt: Attempt, use: Use<A>): Effect.Effect<A, PeerError> =>
  PeerSpans.within(attempt.span, use(attempt)).pipe(Scope.provide(attempt.scope))

/** Notes that the first byte of the answer is here. */
export const answered = ({ options: { memory } }: PullPeers, { begun, entry }: Attempt): Effect.Effect<void> =>
  Effect.map(MonotonicTime.millis, (now) => {
    entry.firstByteMillis = now - begun
    memory.hedgeDelay.observe(now - begun)
  })

/** After such a failure the peer may work again soon; each other failure is its answer. */
const mayComeBack = ({ _tag }: PeerError): boolean =>
  _tag === "PeerUnreachable" || _tag === "PeerDisconnected" || _tag === "PeerStalled" || _tag === "PeerSlow"

/** The peer does not serve, and is not to blame. */
const isRefusal = (error: PeerError): boolean =>
  error._tag === "PeerRefused" || error._tag === "NoMemoryForBody" || isMiss(error)

/** Leaves a peer that failed. */
export const leave = Effect.fnUntraced(
  function*(peers: PullPeers, { entry, patienceMillis, peer, scope }: Attempt, error: PeerError) {
    const { content, memory, record } = peers.options
    entry.outcome = Outcome.Failed({ reason: why(error) })
    // Its connection is closed before another one is opened.
    yield* Scope.close(scope, Exit.fail(error))
    const now = yield* MonotonicTime.millis
    memory.failed(peer, content, error, now)
    if (!isRefusal(error)) record.peersFailed++
    if (error._tag === "PeerStalled" || error._tag === "PeerSlow") {
      if (patienceMillis === undefined) peers.waitedInVainFor(peer)
      else memory.patience.spend(error.waitedMillis, now)
    }
    if (mayComeBack(error)) peers.candidates.addFailed(peer, now)
    yield* RegistryMetrics.peerFailed(error._tag)
    yield* Effect.logDebug(error.message)
  }
)

/** Leaves all peers that are being asked: the time for an answer is over. */
export const leaveAll = Effect.fnUntraced(function*(peers: PullPeers, waitedMillis: number) {
  for (const late of peers.running) {
    yield* leave(peers, late, new PeerStalled({ peer: nameOf(late.peer), waitedMillis }))
  }
  peers.running.clear()
})

/** Leaves a peer because another one answered sooner. */
export const lose = Effect.fnUntraced(function*({ options: { memory } }: PullPeers, { entry, peer, scope }: Attempt) {
  entry.outcome = Outcome.SlowerThanAnother()
  memory.lost(peer, yield* MonotonicTime.millis)
  yield* Scope.close(scope, Exit.void)
})
