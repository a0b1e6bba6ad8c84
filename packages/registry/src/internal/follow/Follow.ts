/**
 * Follows the downloads of other nodes. Where no peer has what a pull wants, and one is downloading it from upstream, the pull waits
 * until that one has it: one node's download serves all. With `single-flight`, nodes that begin in the same moment ask who that one is.
 *
 * A pull takes bytes only from who has more than it has itself, and waits only as long as somebody shows that a download from upstream goes
 * on (`Waiting`). So no two nodes wait for each other.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { Peer } from "@spegel-ts/router/Peer"
import { Duration, Effect, Fiber, Option, Random, Result } from "effect"
import * as ContentId from "../../ContentId.ts"
import type { PeerNotFound, ResolveTimeout } from "../../MirrorError.ts"
import * as LeaseRequest from "../flight/LeaseRequest.ts"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import * as WaitSpans from "../observe/WaitSpans.ts"
import * as Attempt from "../pull/Attempt.ts"
import * as PeerRace from "../pull/PeerRace.ts"
import type { Pull } from "../pull/Pull.ts"
import * as FollowPolicy from "./FollowPolicy.ts"
import * as PeerProbe from "./PeerProbe.ts"
import * as Turn from "./Turn.ts"
import { Waiting } from "./Waiting.ts"

/** One wait on behalf of a pull. */
interface Following<A> {
  readonly pull: Pull
  /** The name of its content. */
  readonly name: string
  /** The first byte wanted. */
  readonly start: number
  readonly waiting: Waiting
  readonly use: Attempt.Use<A>
  /** Peers that have said something, by their ids; others are looked up among the members. */
  readonly met: Map<string, Peer>
  /** The ids of nodes that should have decided, and have not answered. */
  readonly silent: Set<string>
}

/**
 * As `PeerRace.race`, of which it is a longer form: fails once this node is to download from upstream itself. `failed` is the peer that
 * sent the bytes before `start`, and failed.
 */
export const race = Effect.fnUntraced(function*<A>(
  pull: Pull,
  start: number,
  use: Attempt.Use<A>,
  failed?: Peer
): Effect.fn.Return<Attempt.Won<A>, PeerNotFound | ResolveTimeout> {
  const { content, mayFollow, mirror: { evidence, gaveUpAt, options, self }, peers } = pull
  if (!mayFollow) return yield* PeerRace.race(peers, start, use)
  const name = ContentId.print(content)
  const waiting = new Waiting({
    self,
    start,
    failed: failed?.id,
    knownAt: evidence.lastAt(name),
    longestMillis: Duration.toMillis(options.inProgressWait),
    leases: options.inProgress === "single-flight"
  })
  const met = new Map<string, Peer>()
  const noting: Attempt.Use<A> = (attempt) =>
    Effect.tapErrorTag(use(attempt), "PeerStillDownloading", ({ state }) =>
      Effect.map(MonotonicTime.millis, (now) => {
        met.set(attempt.peer.id, attempt.peer)
        waiting.said(attempt.peer.id, state, now)
      }))
  const following: Following<A> = { pull, name, start, waiting, use: noting, met, silent: new Set() }
  const first = yield* Effect.result(PeerRace.race(peers, start, noting))
  if (Result.isSuccess(first)) return first.success
  if (!(yield* begin(following))) return yield* first.failure
  pull.record.waiting = waiting
  const won = yield* WaitSpans.wait(wait(following))
  pull.record.waiting = undefined
  if (Option.isNone(won)) {
    const now = yield* MonotonicTime.millis
    gaveUpAt.set(name, now)
    yield* Effect.logDebug(`${waiting.told(now)}: this node downloads ${name} from upstream`)
  }
  yield* RegistryMetrics.waitEnded(Option.isSome(won) ? "served" : "given_up")
  return Option.isSome(won) ? won.value : yield* first.failure
})

/** A blob is waited for only on behalf of a download of this node's containerd. False if this one need not be. */
const begin = Effect.fnUntraced(function*<A>({ name, pull, waiting }: Following<A>) {
  const { download, mirror: { gaveUpAt, options }, request } = pull
  const { size } = yield* Effect.flatMap(download, Fiber.join)
  if (request._tag === "Blob" && Option.isNone(size)) return false
  const now = yield* MonotonicTime.millis
  if (now - (gaveUpAt.get(name) ?? -Infinity) < FollowPolicy.goMillis) return false
  if (options.inProgress !== "single-flight" && !waiting.isHopeful(now)) return false
  waiting.begin(now, yield* Turn.draw(pull.mirror))
  return true
})

/** Waits for somebody who sends what is wanted; none if this node is to download itself. */
const wait = Effect.fnUntraced(function*<A>(following: Following<A>) {
  const { name, pull, start, use, waiting } = following
  const { mirror: { evidence }, peers } = pull
  while (true) {
    const step = waiting.next(yield* MonotonicTime.millis)
    switch (step._tag) {
      case "GiveUp":
        return Option.none<Attempt.Won<A>>()
      case "AskForLease": {
        if (yield* mayDownload(following, step.inVain)) return Option.none<Attempt.Won<A>>()
        break
      }
      case "LookAgain": {
        peers.renew()
        const won = yield* Effect.option(PeerRace.race(peers, start, use))
        if (Option.isSome(won)) return won
        break
      }
      case "AskSource": {
        yield* Effect.sleep(step.afterMillis)
        const won = yield* askSource(following, step.id)
        if (Option.isSome(won)) return won
        break
      }
      case "Pause":
        yield* Effect.sleep(step.millis * (yield* Random.nextBetween(0.8, 1.2)))
    }
    evidence.shown(name, waiting.provedAt)
  }
})

/** Asks who downloads it; true if this node is to. */
const mayDownload = Effect.fnUntraced(function*<A>(
  { pull, silent, waiting }: Following<A>,
  inVain: ReadonlyArray<string>
) {
  const decision = yield* LeaseRequest.ask(pull, inVain, silent)
  yield* RegistryMetrics.leaseAsked(decision._tag === "Go" ? "go" : "wait")
  if (decision._tag === "Wait") waiting.leased(decision.id, yield* MonotonicTime.millis)
  return decision._tag === "Go"
})

/** Asks a source how far it is, and for the content once it is far enough. */
const askSource = Effect.fnUntraced(function*<A>({ met, pull, start, use, waiting }: Following<A>, id: string) {
  const { content, mirror: { memory, router }, peers } = pull
  const peer = met.get(id) ?? (yield* router.peers).find((member) => member.id === id)
  if (peer === undefined) {
    waiting.unknown(id)
    return Option.none<Attempt.Won<A>>()
  }
  // It may say that it has the content, and be the one that decides: its bytes would fail one pull after another.
  if (memory.objection(peer, content, yield* MonotonicTime.millis)?.cost === "wrong bytes") {
    waiting.gone(id)
    return Option.none<Attempt.Won<A>>()
  }
  const answer = yield* Effect.result(PeerProbe.ask(pull, peer, start, FollowPolicy.answerMillis))
  if (Result.isFailure(answer)) {
    if (answer.failure === "late" || answer.failure._tag !== "PeerUnreachable") waiting.silent(id)
    else waiting.gone(id)
  } else if (waiting.answered(id, answer.success, yield* MonotonicTime.millis)) {
    const attempt = yield* Attempt.open(peers, { peer, patienceMillis: undefined }, start, false)
    const result = yield* Effect.result(Attempt.run(attempt, use))
    if (Result.isSuccess(result)) return Option.some<Attempt.Won<A>>({ ...attempt, value: result.success })
    yield* Attempt.leave(peers, attempt, result.failure)
    if (result.failure._tag !== "PeerStillDownloading") waiting.gone(id)
  }
  return Option.none<Attempt.Won<A>>()
})
