/**
 * The peers that one pull may ask, the most promising first. An objection to a peer only defers it: it is asked after others.
 * Peers that sent wrong bytes are never asked.
 *
 * One machine may be many peers. So each address is asked once before any is asked again, and all peers of an address together are
 * as likely to be asked first as the one peer of another.
 */
import type { Peer } from "@spegel-ts/router/Peer"
import type { ContentId } from "../../ContentId.ts"
import { maxPatienceMillis } from "../../ResolvePolicy.ts"
import * as PeerAddress from "./PeerAddress.ts"
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
  /** Why peers that do not serve promptly get little time of this pull; undefined if they get the usual time. */
  readonly caution: string | undefined
  /** Whether peers that proved that they know the cluster key are asked before others: if their word is what counts. */
  readonly provedFirst: boolean
  /** From 0 to 1. */
  readonly random: () => number
  /** Called once for each peer that is deferred. */
  readonly onDeferred: (peer: Peer, reason: string) => void
}

/** What can be expected beside the peers that are known now. */
export interface Expectations {
  /** No peer without an objection. */
  readonly nobodyBetter: boolean
  /** A peer at an address that was not asked yet: then none is asked at one that was. */
  readonly newAddress: boolean
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
  readonly #askedAddresses = new Set<string>()
  #peers: ReadonlyArray<Peer> = []

  constructor(options: CandidateOptions) {
    this.#options = options
  }

  /** A peer that may be asked now, or again. */
  add(peer: Peer): void {
    this.#peers = [...this.#peers, peer]
  }

  /** A peer that was asked, and left without its fault. */
  giveBack(peer: Peer): void {
    this.#askedAddresses.delete(PeerAddress.of(peer))
    this.add(peer)
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
  next(now: number, { newAddress, nobodyBetter }: Expectations): Candidate | undefined {
    const { memory } = this.#options
    const { good, others } = this.#sorted(now)
    const chosen = this.#choose(good, now, newAddress)
    if (chosen !== undefined) return this.#take(chosen, undefined)
    if (!nobodyBetter) return undefined
    const patienceOf = ({ cost }: Objection) => cost === "time" ? memory.patience.left(now) : maxPatienceMillis
    const [best] = others.filter(({ objection, peer }) =>
      patienceOf(objection) > 0 && now - (this.#failedAt.get(peer.id) ?? -Infinity) >= comebackMillis
    ).toSorted(byPromise)
    return best === undefined ? undefined : this.#take(best.peer, patienceOf(best.objection))
  }

  /** One of those at addresses that were not asked yet, or else of all. */
  #choose(good: ReadonlyArray<Peer>, now: number, newAddress: boolean): Peer | undefined {
    const unasked = good.filter((peer) => !this.#askedAddresses.has(PeerAddress.of(peer)))
    const proved = this.#options.provedFirst ? unasked.filter(({ proved = false }) => proved) : []
    const best = [proved, unasked, newAddress ? [] : good].find(({ length }) => length > 0) ?? []
    const oneOf = (peers: ReadonlyArray<Peer>) => {
      const chosen = peers[this.#options.memory.choose(peers, this.#options.random, now)]
      return chosen === undefined ? [] : [chosen]
    }
    const [chosen] = oneOf([...Map.groupBy(best, PeerAddress.of).values()].flatMap(oneOf))
    return chosen
  }

  /**
   * Takes the next peer whose word is wanted. Whatever it failed at before this pull, it is asked if no other can be expected: a
   * machine that keeps others busy must not be the only one that is heard.
   */
  nextWitness(now: number, isExpecting: boolean): Candidate | undefined {
    const { good, others } = this.#sorted(now)
    const chosen = this.#choose(good, now, isExpecting) ??
      (isExpecting ? undefined : this.#choose(this.#unfailed(others.map(({ peer }) => peer)), now, false))
    return chosen === undefined ? undefined : this.#take(chosen, undefined)
  }

  /** Those that this pull has not asked. */
  left(now: number): ReadonlyArray<Peer> {
    const { good, others } = this.#sorted(now)
    return this.#unfailed([...good, ...others.map(({ peer }) => peer)])
  }

  #unfailed(peers: ReadonlyArray<Peer>): ReadonlyArray<Peer> {
    return peers.filter(({ id }) => !this.#failedAt.has(id))
  }

  /** Those without an objection, and those with one; without those that sent wrong bytes. */
  #sorted(now: number): { readonly good: ReadonlyArray<Peer>; readonly others: ReadonlyArray<Objectionable> } {
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
    return { good, others }
  }

  #objection(peer: Peer, now: number): Objection | undefined {
    const { caution, content, memory } = this.#options
    const objection = memory.objection(peer, content, now)
    if (objection !== undefined || caution === undefined || memory.isPrompt(peer)) return objection
    return { reason: caution, cost: "time", until: now }
  }

  #defer(peer: Peer, { reason }: Objection): void {
    if (this.#deferred.has(peer.id) || this.#failedAt.has(peer.id)) return
    this.#deferred.add(peer.id)
    this.#options.onDeferred(peer, reason)
  }

  #take(peer: Peer, patienceMillis: number | undefined): Candidate {
    this.#peers = this.#peers.filter((one) => one !== peer)
    this.#askedAddresses.add(PeerAddress.of(peer))
    return { peer, patienceMillis }
  }
}
