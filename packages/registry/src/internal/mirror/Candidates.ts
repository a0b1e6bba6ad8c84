/**
 * The peers that one request may ask, the most promising first. What speaks against a peer is a preference: it is asked
 * later than others, and not never. Only who sends wrong bytes is left out.
 */
import type { Peer } from "@spegel-ts/router/Peer"
import { maxPatienceMillis } from "./Patience.ts"
import type { Objection, PeerMemory } from "./PeerMemory.ts"

/** A peer that failed this request cannot be back sooner. */
const comebackMillis = 100

export interface Candidate {
  readonly peer: Peer
  /** How long it may be silent, in milliseconds, where something speaks against it. */
  readonly patienceMillis: number | undefined
}

export interface CandidateOptions {
  readonly content: string
  readonly memory: PeerMemory
  /** Why a peer that has not proved itself is not to keep this request waiting for long, if so. */
  readonly caution: string | undefined
  /** From 0 to 1. */
  readonly random: () => number
  /** Told once of each peer that is not asked when its turn comes. */
  readonly onPassedOver: (peer: Peer, reason: string) => void
}

interface Objectionable {
  readonly peer: Peer
  readonly objection: Objection
}

/** Who fails at once costs little; and the sooner an objection ends, the less it says. */
const byPromise = (one: Objectionable, other: Objectionable) =>
  Number(one.objection.cost === "time") - Number(other.objection.cost === "time") ||
  one.objection.until - other.objection.until

export class Candidates {
  readonly #options: CandidateOptions
  readonly #passedOver = new Set<string>()
  readonly #failedAt = new Map<string, number>()
  #peers: ReadonlyArray<Peer> = []

  constructor(options: CandidateOptions) {
    this.#options = options
  }

  /** A peer that may be asked now, or again. */
  add(peer: Peer): void {
    this.#peers = [...this.#peers, peer]
  }

  /** A peer broke off, or could not be reached: it may be asked again when it had time to come back. */
  addFailed(peer: Peer, now: number): void {
    this.#failedAt.set(peer.id, now)
    this.add(peer)
  }

  /** Whether there is a peer against which nothing speaks. */
  hasGood(now: number): boolean {
    return this.#peers.some((peer) => this.#objection(peer, now) === undefined)
  }

  /** Takes the next to ask; one against which something speaks only where that is `allowed`. */
  next(now: number, allowed: boolean): Candidate | undefined {
    const { memory, random } = this.#options
    const good: Array<Peer> = []
    const others: Array<Objectionable> = []
    for (const peer of this.#peers) {
      const objection = this.#objection(peer, now)
      if (objection === undefined) good.push(peer)
      else {
        this.#passOver(peer, objection)
        if (objection.cost !== "wrong bytes") others.push({ peer, objection })
      }
    }
    this.#peers = [...good, ...others.map(({ peer }) => peer)]
    const chosen = good[memory.choose(good, random, now)]
    if (chosen !== undefined) return this.#take(chosen, undefined)
    if (!allowed) return undefined
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

  #passOver(peer: Peer, { reason }: Objection): void {
    if (this.#passedOver.has(peer.id) || this.#failedAt.has(peer.id)) return
    this.#passedOver.add(peer.id)
    this.#options.onPassedOver(peer, reason)
  }

  #take(peer: Peer, patienceMillis: number | undefined): Candidate {
    this.#peers = this.#peers.filter((one) => one !== peer)
    return { peer, patienceMillis }
  }
}
