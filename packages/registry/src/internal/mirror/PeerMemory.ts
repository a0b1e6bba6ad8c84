/**
 * This node's experience with peers: which could not be reached or were too slow, which lacked content that they were said to
 * have, which sent wrong bytes, and how busy each is. All of it is bounded and fades.
 *
 * A reason not to ask a peer is an objection: others are asked before it. Only wrong bytes exclude a peer.
 *
 * A lookup may name a peer's id together with somebody else's address. What happens there is not held against the peer as others
 * name it: wrong bytes count for the id at the address that sent them, all else for the id with all addresses that were named.
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import { Tally } from "@spegel-ts/background/Tally"
import type { Peer } from "@spegel-ts/router/Peer"
import * as ContentId from "../../ContentId.ts"
import type { PeerError } from "../../MirrorError.ts"
import { HedgeDelay, Patience } from "../../ResolvePolicy.ts"
import * as PeerAddress from "./PeerAddress.ts"

export interface PeerMemoryOptions {
  /** How long to wait for a first byte before hedging, until there are observations, in milliseconds. */
  readonly hedgeMillis: number
  /** How long a peer's word that it holds something is believed, in milliseconds. */
  readonly recordMillis: number
}

/** Refusing costs little; it is mostly a peer that restarts. */
const unreachablePauseMillis = 1000
const slowPauseMillis = 10_000
const maxPauseMillis = 60_000
/** A body that broke off is not taken from the same peer again for this long. */
const brokenMillis = 30_000
const busyMillis = 1000
const maxBusyMillis = 30_000
/** For this long a peer that answered too late counts as if it had `lateLoad` more requests. */
const lateMillis = 10_000
const lateLoad = 4
const quarantineMillis = 60 * 60_000
/** The fate of a download is known sooner, as a rule. */
const doubtMillis = 5 * 60_000
/** A lie counts half after this long. */
const lieHalfLifeMillis = 10 * 60_000
/** From this many lies on, nothing is taken from the peer. */
const maxLies = 3
const maxEntries = 10_000

export interface Objection {
  /** When it ends, as `MonotonicTime.millis` has it. */
  readonly until: number
  /** The peer's failure, in words that follow "it". */
  readonly reason: string
  /** The possible cost of asking it nevertheless: a moment, time in which nothing comes, or wrong bytes. */
  readonly cost: "little" | "time" | "wrong bytes"
}

const hasLied: Objection = { until: Infinity, reason: "has lied repeatedly", cost: "wrong bytes" }

/** The more an objection may cost, the more it counts. */
const weights = { little: 0, time: 1, "wrong bytes": 2 }

const strongest = (objections: ReadonlyArray<Objection | undefined>, now: number): Objection | undefined =>
  objections
    .filter((objection) => objection !== undefined)
    .filter(({ until }) => until > now)
    .toSorted((one, other) => weights[other.cost] - weights[one.cost] || other.until - one.until)[0]

const bounded = <A>() => new BoundedMap<string, A>(maxEntries)

/** A peer as a lookup named it. */
const targetOf = ({ addresses, id, servicePort }: Peer) => `${id} ${servicePort} ${addresses.join(" ")}`
/** A peer at each address that it may send bytes from; at one, if it has sent some (`PeerAddress.answering`). */
const sendersOf = ({ addresses, id }: Peer) => addresses.map((address) => `${id} ${PeerAddress.canonical(address)}`)
const keyOf = (whose: string, content: ContentId.ContentId) => `${whose} ${ContentId.print(content)}`

export class PeerMemory {
  /** By target. The next pause is twice as long, until the peer has served something. */
  readonly #pauses = bounded<Objection & { readonly millis: number }>()
  readonly #busy = bounded<Objection>()
  /** By sender. */
  readonly #lies = bounded<{ readonly count: number; readonly at: number }>()
  /** By target and content. */
  readonly #contents = bounded<Objection>()
  /** By sender and content: its bytes were wrong, or it was among those that sent wrong bytes. */
  readonly #quarantines = bounded<Objection>()
  /** By sender and content: it sent a download, whose bytes it had not verified itself. */
  readonly #unverified = bounded<true>()
  /** By sender and content: its bytes are not known to be right. */
  readonly #doubts = bounded<Objection>()
  readonly #load = new Tally<string>()
  /** By target: the address from which it has served something. */
  readonly #served = bounded<string>()
  /** Targets that have served something since they last kept a request waiting. */
  readonly #prompt = bounded<true>()
  /** By target: until when it counts as late. */
  readonly #late = bounded<number>()
  /** How long requests wait for peers that kept others waiting. */
  readonly patience = new Patience()
  readonly hedgeDelay: HedgeDelay
  readonly #recordMillis: number

  constructor(options: PeerMemoryOptions) {
    this.hedgeDelay = new HedgeDelay(options.hedgeMillis)
    this.#recordMillis = options.recordMillis
  }

  /** The strongest objection to asking a peer for some content now, if there is any. */
  objection(peer: Peer, content: ContentId.ContentId, now: number): Objection | undefined {
    const ofBytes = sendersOf(peer).map((sender) => keyOf(sender, content))
      .flatMap((key) => [this.#quarantines.get(key), this.#doubts.get(key)])
    const ofContent = this.#contents.get(keyOf(targetOf(peer), content))
    return strongest([...ofBytes, ofContent, ...this.#ofAll(peer, now)], now)
  }

  /** The strongest objection to asking a peer for anything now, if there is any. */
  pause(peer: Peer, now: number): Objection | undefined {
    return strongest(this.#ofAll(peer, now), now)
  }

  /** What counts whatever the content is. */
  #ofAll(peer: Peer, now: number): ReadonlyArray<Objection | undefined> {
    if (sendersOf(peer).some((sender) => this.#lieCount(sender, now) >= maxLies)) return [hasLied]
    const target = targetOf(peer)
    return [this.#pauses.get(target), this.#busy.get(target)]
  }

  /** A peer gave all that it was asked for, from `address`: what it failed at before is over. */
  served(peer: Peer, content: ContentId.ContentId, address: string): void {
    const target = targetOf(peer)
    this.#pauses.delete(target)
    this.#busy.delete(target)
    this.#contents.delete(keyOf(target, content))
    this.#served.set(target, PeerAddress.canonical(address))
    this.#prompt.set(target, true)
  }

  /** The address from which the peer has served this node before; undefined if it never has. */
  servedFrom(peer: Peer): string | undefined {
    return this.#served.get(targetOf(peer))
  }

  /** Whether the peer served something, and has kept no request waiting since. */
  isPrompt(peer: Peer): boolean {
    return this.#prompt.has(targetOf(peer))
  }

  /** A peer was left because of `error`. */
  failed(peer: Peer, content: ContentId.ContentId, error: PeerError, now: number): void {
    switch (error._tag) {
      case "PeerUnreachable":
        return this.#pause(peer, unreachablePauseMillis, "could not be reached a moment ago", "little", now)
      case "PeerStalled":
        return this.#pause(peer, slowPauseMillis, "was too slow a moment ago", "time", now)
      case "PeerSlow":
        return error.othersBytesPerSecond === undefined
          ? this.#pause(peer, slowPauseMillis, "was too slow a moment ago", "time", now)
          : this.#pause(peer, slowPauseMillis, "was much slower than others a moment ago", "little", now)
      case "PeerDisconnected":
        return this.#object(peer, content, now + brokenMillis, "broke off a moment ago")
      case "PeerRefused":
        if (error.status === 503) return this.#isBusy(peer, error.retryAfterMillis, now)
        if (error.status !== 404) return this.#object(peer, content, now + brokenMillis, "refused it a moment ago")
        // A peer may hold a tag at any time; its claim to hold a digest is valid for this long.
        return content._tag === "Digest"
          ? this.#object(peer, content, now + this.#recordMillis, "did not have it")
          : undefined
      case "ContentCorrupted":
        // `corrupted` is told, with all peers that sent some of it.
        return undefined
      case "NoMemoryForBody":
      case "PeerStillDownloading":
        return undefined
    }
  }

  /** A peer begins to send content: that of a download which it has in progress, or content that it holds. */
  took(peer: Peer, content: ContentId.ContentId, isDownload: boolean): void {
    for (const key of sendersOf(peer).map((sender) => keyOf(sender, content))) {
      if (isDownload) this.#unverified.set(key, true)
      else this.#unverified.delete(key)
    }
  }

  /**
   * Wrong bytes came from these peers, each at the address that sent: all of them from `only`, if that is known. A peer that sent a
   * download passed on what it got itself: that is no lie, and it may hold the right bytes soon.
   */
  corrupted(peers: ReadonlyArray<Peer>, content: ContentId.ContentId, now: number, only?: Peer): void {
    const isUnverified = (peer: Peer) => sendersOf(peer).some((sender) => this.#unverified.has(keyOf(sender, content)))
    this.doubted(peers.filter(isUnverified), content, now)
    const senders = peers.filter((sender) => !isUnverified(sender))
    const liar = only === undefined || isUnverified(only) ? undefined : only
    for (const sender of senders) {
      const reason = sender.id === liar?.id
        ? "has sent wrong bytes for it"
        : "was among those that sent wrong bytes for it"
      for (const key of sendersOf(sender)) {
        this.#quarantines.set(keyOf(key, content), { until: now + quarantineMillis, reason, cost: "wrong bytes" })
      }
    }
    if (liar === undefined) return
    for (const key of sendersOf(liar)) this.#lies.set(key, { count: this.#lieCount(key, now) + 1, at: now })
  }

  /** All bytes came from `senders`, and containerd has thrown them away; whether they were right is not known yet. */
  doubted(senders: ReadonlyArray<Peer>, content: ContentId.ContentId, now: number): void {
    const reason = "has sent bytes for it that were not kept"
    for (const key of senders.flatMap(sendersOf)) {
      this.#doubts.set(keyOf(key, content), { until: now + doubtMillis, reason, cost: "wrong bytes" })
    }
  }

  /** The bytes that came from `senders` were right. */
  believed(senders: ReadonlyArray<Peer>, content: ContentId.ContentId): void {
    for (const key of senders.flatMap(sendersOf)) this.#doubts.delete(keyOf(key, content))
  }

  /** Another peer answered before this one, which had been asked sooner or at the same time. */
  lost(peer: Peer, now: number): void {
    this.#late.set(targetOf(peer), now + lateMillis)
  }

  /** The less busy of two taken at random: this spreads load without all nodes choosing the same peer. Returns its index. */
  choose(peers: ReadonlyArray<Peer>, random: () => number, now: number): number {
    const first = Math.floor(random() * peers.length)
    if (peers.length < 2) return first
    const other = Math.floor(random() * (peers.length - 1))
    const second = other >= first ? other + 1 : other
    return this.#loadOf(peers[second], now) < this.#loadOf(peers[first], now) ? second : first
  }

  /** A request to the peer begins (1) or ends (-1). */
  busy(peer: Peer, change: 1 | -1): void {
    this.#load.add(targetOf(peer), change)
  }

  #loadOf(peer: Peer | undefined, now: number): number {
    if (peer === undefined) return 0
    const target = targetOf(peer)
    return this.#load.of(target) + ((this.#late.get(target) ?? 0) > now ? lateLoad : 0)
  }

  #pause(peer: Peer, firstMillis: number, reason: string, cost: Objection["cost"], now: number): void {
    const target = targetOf(peer)
    if (cost === "time") this.#prompt.delete(target)
    const last = this.#pauses.get(target)
    // During a pause another failure proves nothing new.
    const factor = last !== undefined && now < last.until ? 1 : 2
    const millis = Math.min(maxPauseMillis, Math.max(firstMillis, (last?.millis ?? 0) * factor))
    this.#pauses.set(target, { until: now + millis, millis, reason, cost })
  }

  #isBusy(peer: Peer, retryAfterMillis: number | undefined, now: number): void {
    const until = now + Math.min(maxBusyMillis, retryAfterMillis ?? busyMillis)
    this.#busy.set(targetOf(peer), { until, reason: "said that it is busy", cost: "little" })
  }

  #object(peer: Peer, content: ContentId.ContentId, until: number, reason: string): void {
    this.#contents.set(keyOf(targetOf(peer), content), { until, reason, cost: "little" })
  }

  #lieCount(sender: string, now: number): number {
    const lies = this.#lies.get(sender)
    return lies === undefined ? 0 : lies.count * 2 ** ((lies.at - now) / lieHalfLifeMillis)
  }
}
