/**
 * Follows the downloads of other nodes. Where no peer has what a pull wants, and one is downloading it from upstream, the pull waits
 * until that one has it: one node's download serves all. With `single-flight`, nodes that begin in the same moment ask who that one is.
 *
 * A pull waits for downloads that are left to upstream, which wait for nobody, and takes bytes only from who has more than it has
 * itself. So no two nodes wait for each other.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { Peer } from "@spegel-ts/router/Peer"
import { Duration, Effect, Fiber, Option, Random, Result } from "effect"
import type { PeerNotFound, ResolveTimeout } from "../../MirrorError.ts"
import * as LeaseRequest from "../flight/LeaseRequest.ts"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import type * as Attempt from "../pull/Attempt.ts"
import * as PeerRace from "../pull/PeerRace.ts"
import type { Pull } from "../pull/Pull.ts"
import type { DownloadState } from "../share/DownloadState.ts"
import * as FollowPolicy from "./FollowPolicy.ts"
import * as PeerProbe from "./PeerProbe.ts"

/** How many sources are asked again and again. */
const maxSources = 3

/** The state of one wait. */
interface Waiting {
  readonly pull: Pull
  /** The first byte wanted. */
  readonly start: number
  /** Peers that are downloading it, and may have enough of it soon. */
  readonly sources: Map<string, Peer>
  /** The ids of those that were waited for in vain. */
  readonly inVain: Set<string>
  /** As `MonotonicTime.millis` has it; undefined before the wait has begun. This and the next ones. */
  begun: number | undefined
  /** When a source last showed that a download from upstream goes on, or was last named by others. */
  shownAt: number
  /** When a source last showed it, or the wait began. */
  provedAt: number
  lookedAt: number
  /** As `FollowPolicy.turnOf` has it. */
  turn: number
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
  if (!pull.mayFollow) return yield* PeerRace.race(pull.peers, start, use)
  const waiting: Waiting = {
    pull,
    start,
    sources: new Map(),
    inVain: new Set(failed === undefined ? [] : [failed.id]),
    begun: undefined,
    shownAt: 0,
    provedAt: 0,
    lookedAt: 0,
    turn: 0
  }
  const noting: Attempt.Use<A> = (attempt) =>
    Effect.tapErrorTag(use(attempt), "PeerStillDownloading", ({ state }) => note(waiting, attempt.peer, state))
  while (true) {
    pull.record.waitingFor = undefined
    const result = yield* Effect.result(PeerRace.race(pull.peers, start, noting))
    if (Result.isSuccess(result)) {
      if (waiting.begun !== undefined) yield* RegistryMetrics.waitEnded("served")
      return result.success
    }
    pull.record.waitingFor = waiting.sources
    if (!(yield* wait(waiting))) {
      if (waiting.begun !== undefined) yield* RegistryMetrics.waitEnded("given_up")
      return yield* result.failure
    }
  }
})

/** A peer has said how far its download is, and whom to ask instead. */
const note = Effect.fnUntraced(function*(waiting: Waiting, peer: Peer, { instead, origin }: DownloadState) {
  const isFull = instead.length > 0
  if (origin === "stalled" || (origin === "peers" && !isFull)) return
  waiting.shownAt = waiting.provedAt = yield* MonotonicTime.millis
  addSource(waiting, peer)
  if (isFull) yield* addSources(waiting, instead)
})

const addSource = ({ sources }: Waiting, peer: Peer): void => {
  if (sources.size < maxSources) sources.set(peer.id, peer)
}

/** Those that are no members any more were waited for in vain. */
const addSources = Effect.fnUntraced(function*(waiting: Waiting, ids: ReadonlyArray<string>) {
  const { inVain, pull: { mirror: { router, self } }, sources } = waiting
  const unknown = ids.filter((id) => id !== self && !sources.has(id))
  if (unknown.length === 0) return
  const members = new Map((yield* router.peers).map((peer) => [peer.id, peer]))
  for (const id of unknown) {
    const peer = members.get(id)
    if (peer === undefined) inVain.add(id)
    else addSource(waiting, peer)
  }
})

/** Waits until peers may be asked again; false if this node is to download itself. */
const wait = Effect.fnUntraced(function*(waiting: Waiting) {
  const { pull: { peers }, sources } = waiting
  if (waiting.begun === undefined && !(yield* begin(waiting))) return false
  while (true) {
    const now = yield* MonotonicTime.millis
    if (isOver(waiting, now)) return false
    if (isLost(waiting, now) && !(yield* findAnother(waiting))) return false
    if (now - waiting.lookedAt >= FollowPolicy.lookAgainMillis) {
      waiting.lookedAt = now
      peers.renew()
      return true
    }
    yield* Effect.sleep(FollowPolicy.askAgainMillis * (yield* Random.nextBetween(0.8, 1.2)))
    const further = yield* Effect.forEach([...sources.values()], (peer) => probe(waiting, peer), {
      concurrency: maxSources
    })
    if (!further.includes(true)) continue
    peers.renew()
    return true
  }
})

/** A blob is waited for only on behalf of a download of this node's containerd. */
const begin = Effect.fnUntraced(function*(waiting: Waiting) {
  const { pull: { download, mirror: { router }, request }, sources } = waiting
  const { size } = yield* Effect.flatMap(download, Fiber.join)
  if (request._tag === "Blob" && Option.isNone(size)) return false
  if (sources.size === 0 && !(yield* findAnother(waiting))) return false
  const now = yield* MonotonicTime.millis
  waiting.begun = now
  waiting.shownAt = now
  waiting.provedAt = now
  waiting.lookedAt = now
  waiting.turn = FollowPolicy.turnOf((yield* router.peers).length + 1, yield* Random.next)
  return true
})

/** Whether it has waited long enough, whatever others say. */
const isOver = ({ begun = 0, provedAt, pull: { mirror: { options } }, turn }: Waiting, now: number): boolean =>
  now - begun > FollowPolicy.maxWaitMillis(Duration.toMillis(options.inProgressWait), turn) ||
  now - provedAt > FollowPolicy.unprovedMillis + FollowPolicy.patienceMillis(turn)

/** Whether no source shows any more that a download from upstream goes on. */
const isLost = ({ pull: { mirror: { options } }, shownAt, sources, turn }: Waiting, now: number): boolean => {
  const silence = sources.size === 0 ? 0 : FollowPolicy.goneMillis
  return now - shownAt > silence + (options.inProgress === "single-flight" ? 0 : FollowPolicy.patienceMillis(turn))
}

/** Asks whom to wait for, in place of those that were waited for in vain; false if for nobody. */
const findAnother = Effect.fnUntraced(function*(waiting: Waiting) {
  const { inVain, pull, sources } = waiting
  if (pull.mirror.options.inProgress !== "single-flight") return false
  for (const id of sources.keys()) inVain.add(id)
  sources.clear()
  const decision = yield* LeaseRequest.ask(pull, [...inVain])
  yield* RegistryMetrics.leaseAsked(decision._tag === "Go" ? "go" : "wait")
  if (decision._tag === "Go") return false
  waiting.shownAt = yield* MonotonicTime.millis
  yield* addSources(waiting, [decision.id])
  return true
})

/** Asks a source how far it is; true if it sends what is wanted. */
const probe = Effect.fnUntraced(function*(waiting: Waiting, peer: Peer) {
  const { inVain, pull, sources, start } = waiting
  const probed = yield* Effect.result(PeerProbe.ask(pull, peer, start))
  if (Result.isFailure(probed)) return false
  const found = probed.success
  if (found._tag === "Held" || (found._tag === "Downloading" && isEnough(found.state, start))) {
    sources.delete(peer.id)
    pull.peers.candidates.giveBack(peer)
    return true
  }
  if (found._tag === "Downloading" && found.state.origin !== "stalled") yield* note(waiting, peer, found.state)
  else {
    sources.delete(peer.id)
    inVain.add(peer.id)
  }
  return false
})

const isEnough = ({ instead, written }: DownloadState, start: number): boolean =>
  written > start && instead.length === 0
