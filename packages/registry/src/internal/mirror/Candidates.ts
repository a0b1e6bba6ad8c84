/**
 * The peers that one pull may ask, the most promising first. An objection to a peer only defers it: it is asked after others.
 * Peers that sent wrong bytes are never asked.
 */
import type { Peer } from "@spegel-ts/router/Peer"
import type { ContentId } from "../../ContentId.ts"
import { maxPatienceMillis } from "../../ResolvePolicy.ts"
import type { Objection, PeerMemory } from "./PeerMemory.ts"

/** A peer that failed this pull cannot be back sooner. */
const comebackMillis = 100

export interface Candidate {
  readonly peer: Peer
  /** How long it may be silent, in milliseconds; undefined if there is no objection to it: then the usual time. */
  readonly patienceMillis: number | undefined
}

export interface CandidateOptions {
  readonly content: ContentId
  readonly memory: PeerMemory
  /** Why peers that have not proved themselves get little time of this pull; undefined if they get the usual time. */
  readonly caution: string | undefined
  /** From 0 to 1. */
  readonly random: () => number
  /** Called once for each peer that is deferred. */
  readonly onDeferred: (peer: Peer, reason: string) => void
}

interface Objectionable {
  readonly peer: Peer
  readonly objection: Objection
}

/** A peer that fails at once costs little; and the sooner an objection ends, the less it says. */
const byPromise = (one: Objectionable, other: Objectionable) =>
  Number(one.objection.cost === "time") - Number(other.objection.cost === "time") ||
  one.objection.until - other.objection.until

export class Candidates {
  readonly #options: CandidateOptions
  readonly #deferred = new Set<string>()
  readonly #failedAt = new Map<string, number>()
  #peers: ReadonlyArray<Peer> = []

  constructor(options: CandidateOptions) {
    this.#options = options
  }

  /** A peer that may be asked now, or again. */
  add(peer: Peer): void {
    this.#peers = [...this.#peers, peer]
  }

  /** A peer that failed and may come back: it may be asked again after a while. */
  addFailed(peer: Peer, now: number): void {
    this.#failedAt.set(peer.id, now)
    this.add(peer)
  }

  /** Whether there is a peer without an objection. */
  hasGood(now: number): boolean {
    return this.#peers.some((peer) => this.#objection(peer, now) === undefined)
  }

  /** Takes the next peer to ask; one with an objection only if no better one can be expected. */
  next(now: number, nobodyBetter: boolean): Candidate | undefined {
    const { memory, random } = this.#options
    const good: Array<Peer> = []
    const others: Array<Objectionable> = []
    for (const peer of this.#peers) {
      const objection = this.#objection(peer, now)
      if (objection === undefined) good.push(peer)
      else {
        this.#defer(peer, objection)
        if (objection.cost !== "wrong bytes") others.push({ peer, objection })
      }
    }
    this.#peers = [...good, ...others.map(({ peer }) => peer)]
    const chosen = good[memory.choose(good, random, now)]
    if (chosen !== undefined) return this.#take(chosen, undefined)
    if (!nobodyBetter) return undefined
    const patienceOf = ({ cost }: Objection) => cost === "time" ? memory.patience.left(now) : maxPatienceMillis
    const [best] = others.filter(({ objection, peer }) =>
      patienceOf(objection) > 0 && now - (this.#failedAt.get(peer.id) ?? -Infinity) >= comebackMillis
    ).toSorted(byPromise)
    return best === undefined ? undefined : this.#take(best.peer, patienceOf(best.objection))
  }

  #objection(peer: Peer, now: number): Objection | undefined {
    const { caution, content, memory } = this.#options
    const objection = memory.objection(peer, content, now)
    if (objection !== undefined || caution === undefined || memory.isProved(peer)) return objection
    return { reason: caution, cost: "time", until: now }
  }

  #defer(peer: Peer, { reason }: Objection): void {
    if (this.#deferred.has(peer.id) || this.#failedAt.has(peer.id)) return
    this.#deferred.add(peer.id)
    this.#options.onDeferred(peer, reason)
  }

  #take(peer: Peer, patienceMillis: number | undefined): Candidate {
    this.#peers = this.#peers.filter((one) => one !== peer)
    return { peer, patienceMillis }
  }
}
