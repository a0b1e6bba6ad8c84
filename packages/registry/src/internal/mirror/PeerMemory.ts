/**
 * What this node remembers of peers: who could not be reached or was too slow, who lacked what he was said to have, who
 * lied, how busy each is, and how soon first bytes come. All of it is bounded and fades.
 *
 * What speaks against a peer is an objection: others are asked before it. Only wrong bytes exclude a peer.
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import { Tally } from "@spegel-ts/background/Tally"
import * as Digest from "@spegel-ts/oci/Digest"
import type { Peer } from "@spegel-ts/router/Peer"
import type { PeerError } from "../../MirrorError.ts"
import { Patience } from "./Patience.ts"

export interface PeerMemoryOptions {
  /** How long a first byte may take until there are times to go by, in milliseconds. */
  readonly hedgeMillis: number
  /** How long what a peer says it holds is believed, in milliseconds. */
  readonly recordMillis: number
}

/** Refusing costs little; it is mostly a peer that restarts. */
const unreachablePauseMillis = 1000
const slowPauseMillis = 10_000
const maxPauseMillis = 60_000
/** A body that broke off is not taken from the same peer again for so long. */
const brokenMillis = 30_000
const busyMillis = 1000
const maxBusyMillis = 30_000
/** For so long a peer that answered too late counts as if it had that many requests more. */
const lateMillis = 10_000
const lateLoad = 4
const quarantineMillis = 60 * 60_000
/** What becomes of a download is known sooner, as a rule. */
const doubtMillis = 5 * 60_000
/** A lie counts half after this long. */
const lieHalfLifeMillis = 10 * 60_000
/** From so many lies on, nothing is taken from the peer. */
const maxLies = 3
const maxEntries = 10_000

/** Below this a late byte tells of a busy process and not of a slow peer. */
const minHedgeMillis = 5
const samples = 100

export interface Objection {
  /** When it ends, as `MonotonicTime.millis` has it. */
  readonly until: number
  /** What the peer did. */
  readonly reason: string
  /** What asking it all the same may cost: a moment, time in which nothing comes, or wrong bytes. */
  readonly cost: "little" | "time" | "wrong bytes"
}

/** The more an objection may cost, the more it counts. */
const weights = { little: 0, time: 1, "wrong bytes": 2 }

const bounded = <A>() => new BoundedMap<string, A>(maxEntries)

export class PeerMemory {
  /** By peer. The next is twice as long, until the peer has served something. */
  readonly #pauses = bounded<Objection & { readonly millis: number }>()
  readonly #busy = bounded<Objection>()
  readonly #lies = bounded<{ readonly count: number; readonly at: number }>()
  /** By peer and content. */
  readonly #contents = bounded<Objection>()
  /** By peer and content: what came of it is not known to be right. */
  readonly #doubts = bounded<Objection>()
  readonly #load = new Tally<string>()
  /** Peers that have served something since they last kept a request waiting. */
  readonly #proved = bounded<true>()
  /** What requests may wait for peers that kept others waiting. */
  readonly patience = new Patience()
  /** Until when. */
  readonly #late = bounded<number>()
  readonly #firstBytes: Array<number> = []
  readonly #recordMillis: number
  #hedgeMillis: number

  constructor(options: PeerMemoryOptions) {
    this.#hedgeMillis = options.hedgeMillis
    this.#recordMillis = options.recordMillis
  }

  /** What speaks most against asking a peer for some content now, if anything does. */
  objection(peer: Peer, content: string, now: number): Objection | undefined {
    if (this.#lieCount(peer.id, now) >= maxLies) {
      return { until: Infinity, reason: "has lied repeatedly", cost: "wrong bytes" }
    }
    const about = `${peer.id} ${content}`
    const [most] = [
      this.#contents.get(about),
      this.#doubts.get(about),
      this.#pauses.get(peer.id),
      this.#busy.get(peer.id)
    ]
      .filter((objection) => objection !== undefined)
      .filter(({ until }) => until > now)
      .toSorted((one, other) => weights[other.cost] - weights[one.cost] || other.until - one.until)
    return most
  }

  /** The first byte of an answer came. */
  answered(millis: number): void {
    this.#firstBytes.push(millis)
    if (this.#firstBytes.length > samples) this.#firstBytes.shift()
    const sorted = this.#firstBytes.toSorted((a, b) => a - b)
    this.#hedgeMillis = Math.max(minHedgeMillis, sorted[Math.floor(sorted.length * 0.8)] ?? 0)
  }

  /** A peer gave all that it was asked for: what it failed at before is over. */
  served(peer: Peer, content: string): void {
    this.#pauses.delete(peer.id)
    this.#busy.delete(peer.id)
    this.#contents.delete(`${peer.id} ${content}`)
    this.#proved.set(peer.id, true)
  }

  /** Whether the peer served something, and has kept no request waiting since. */
  isProved({ id }: Peer): boolean {
    return this.#proved.has(id)
  }

  /** A peer was left because of `error`. */
  failed(peer: Peer, content: string, error: PeerError, now: number): void {
    const about = (millis: number, reason: string, cost: Objection["cost"] = "little") =>
      void this.#contents.set(`${peer.id} ${content}`, { until: now + millis, reason, cost })
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
        return about(brokenMillis, "broke off a moment ago")
      case "PeerRefused":
        if (error.status === 503) {
          const until = now + Math.min(maxBusyMillis, error.retryAfterMillis ?? busyMillis)
          return void this.#busy.set(peer.id, { until, reason: "said that it is busy", cost: "little" })
        }
        if (error.status !== 404) return about(brokenMillis, "refused it a moment ago")
        // A tag may come at any time; what a digest is said to be held for is said for so long.
        return Digest.isDigest(content) ? about(this.#recordMillis, "did not have it") : undefined
      case "ContentCorrupted":
        // Told by `corrupted`, with all who sent some of it.
        return undefined
    }
  }

  /** Wrong bytes came from `peers`: from `liar`, where that is known. */
  corrupted(peers: ReadonlyArray<Peer>, content: string, now: number, liar?: Peer): void {
    for (const { id } of peers) {
      this.#contents.set(`${id} ${content}`, {
        until: now + quarantineMillis,
        reason: id === liar?.id ? "has sent wrong bytes for it" : "was among those that sent wrong bytes for it",
        cost: "wrong bytes"
      })
    }
    if (liar !== undefined) this.#lies.set(liar.id, { count: this.#lieCount(liar.id, now) + 1, at: now })
  }

  /** All bytes came from `peers`, and containerd has thrown them away; whether they were right is not known yet. */
  doubted(peers: ReadonlyArray<Peer>, content: string, now: number): void {
    for (const { id } of peers) {
      this.#doubts.set(`${id} ${content}`, {
        until: now + doubtMillis,
        reason: "has sent bytes for it that were not kept",
        cost: "wrong bytes"
      })
    }
  }

  /** What came from `peers` was right. */
  believed(peers: ReadonlyArray<Peer>, content: string): void {
    for (const { id } of peers) this.#doubts.delete(`${id} ${content}`)
  }

  /** How long a first byte may take before another peer is asked beside, in milliseconds. */
  get hedgeMillis(): number {
    return this.#hedgeMillis
  }

  /** Another peer answered before this one, which had been asked sooner or at the same time. */
  lost(peer: Peer, now: number): void {
    this.#late.set(peer.id, now + lateMillis)
  }

  /** Of two taken at random, the less busy: spreads load without everybody choosing the same. */
  choose(peers: ReadonlyArray<Peer>, random: () => number, now: number): number {
    const first = Math.floor(random() * peers.length)
    if (peers.length < 2) return first
    const other = Math.floor(random() * (peers.length - 1))
    const second = other >= first ? other + 1 : other
    const load = (index: number) => {
      const id = peers[index]?.id ?? ""
      return this.#load.of(id) + ((this.#late.get(id) ?? 0) > now ? lateLoad : 0)
    }
    return load(second) < load(first) ? second : first
  }

  /** A request to the peer begins (1) or ends (-1). */
  busy(peer: Peer, change: 1 | -1): void {
    this.#load.add(peer.id, change)
  }

  #pause(peer: Peer, firstMillis: number, reason: string, cost: Objection["cost"], now: number): void {
    if (cost === "time") this.#proved.delete(peer.id)
    const last = this.#pauses.get(peer.id)
    // While it lasts, another failure tells nothing new.
    const factor = last !== undefined && now < last.until ? 1 : 2
    const millis = Math.min(maxPauseMillis, Math.max(firstMillis, (last?.millis ?? 0) * factor))
    this.#pauses.set(peer.id, { until: now + millis, millis, reason, cost })
  }

  #lieCount(id: string, now: number): number {
    const lies = this.#lies.get(id)
    return lies === undefined ? 0 : lies.count * 2 ** ((lies.at - now) / lieHalfLifeMillis)
  }
}
