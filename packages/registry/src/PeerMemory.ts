/**
 * What this node remembers of peers: who could not be reached, who lacked what he was said to have, who lied, how
 * busy each is, and how soon first bytes come. All of it is bounded and fades.
 */
import type { Peer } from "@spegel-ts/router/Peer"
import type { PeerError } from "./MirrorError.ts"

const firstPauseMillis = 1000
const maxPauseMillis = 60_000
const absentMillis = 10 * 60_000
const quarantineMillis = 60 * 60_000
/** A lie counts half after this long. */
const lieHalfLifeMillis = 10 * 60_000
/** From so many lies on, nothing is taken from the peer. */
const maxLies = 3
const maxEntries = 10_000

/** Until there are first-byte times to go by. */
const firstHedgeMillis = 50
/** Below this a late byte tells of a busy process and not of a slow peer. */
const minHedgeMillis = 5
const samples = 100

const remember = <A>(map: Map<string, A>, key: string, value: A) => {
  map.delete(key)
  map.set(key, value)
  const oldest = map.keys().next().value
  if (map.size > maxEntries && oldest !== undefined) map.delete(oldest)
}

export class PeerMemory {
  readonly #pauses = new Map<string, { readonly until: number; readonly millis: number }>()
  /** By peer and content. */
  readonly #absent = new Map<string, number>()
  readonly #quarantined = new Map<string, number>()
  readonly #lies = new Map<string, { readonly count: number; readonly at: number }>()
  readonly #load = new Map<string, number>()
  readonly #firstBytes: Array<number> = []
  #hedgeMillis = firstHedgeMillis

  /** Why a peer is not to be asked for some content now, if so. */
  objection(peer: Peer, content: string, now: number): string | undefined {
    const key = `${peer.id} ${content}`
    if (this.#lieCount(peer.id, now) >= maxLies) return "has lied repeatedly"
    if ((this.#quarantined.get(key) ?? 0) > now) return "has sent wrong bytes for it"
    if ((this.#absent.get(key) ?? 0) > now) return "did not have it"
    if ((this.#pauses.get(peer.id)?.until ?? 0) > now) return "could not be reached a moment ago"
    return undefined
  }

  /** The first byte of an answer came. */
  answered(peer: Peer, millis: number): void {
    this.#pauses.delete(peer.id)
    this.#firstBytes.push(millis)
    if (this.#firstBytes.length > samples) this.#firstBytes.shift()
    const sorted = this.#firstBytes.toSorted((a, b) => a - b)
    this.#hedgeMillis = Math.max(minHedgeMillis, sorted[Math.floor(sorted.length * 0.8)] ?? firstHedgeMillis)
  }

  failed(peer: Peer, content: string, error: PeerError, now: number): void {
    if (error._tag === "PeerUnreachable" || error._tag === "PeerStalled") {
      const millis = Math.min(maxPauseMillis, (this.#pauses.get(peer.id)?.millis ?? firstPauseMillis / 2) * 2)
      remember(this.#pauses, peer.id, { until: now + millis, millis })
    } else if (error._tag === "PeerRefused" && error.status === 404 && content.startsWith("sha")) {
      remember(this.#absent, `${peer.id} ${content}`, now + absentMillis)
    }
  }

  /** Wrong bytes came from `peers`; where it is one alone, it is known who lied. */
  corrupted(peers: ReadonlyArray<Peer>, content: string, now: number): void {
    for (const { id } of peers) {
      remember(this.#quarantined, `${id} ${content}`, now + quarantineMillis)
      if (peers.length === 1) remember(this.#lies, id, { count: this.#lieCount(id, now) + 1, at: now })
    }
  }

  /** How long a first byte may take before another peer is asked beside. */
  get hedgeMillis(): number {
    return this.#hedgeMillis
  }

  /** Of two taken at random, the less busy: spreads load without everybody choosing the same. */
  choose(peers: ReadonlyArray<Peer>, random: () => number): number {
    const first = Math.floor(random() * peers.length)
    if (peers.length < 2) return first
    const other = Math.floor(random() * (peers.length - 1))
    const second = other >= first ? other + 1 : other
    const load = (index: number) => this.#load.get(peers[index]?.id ?? "") ?? 0
    return load(second) < load(first) ? second : first
  }

  /** A request to the peer begins (1) or ends (-1). */
  busy(peer: Peer, change: 1 | -1): void {
    const load = (this.#load.get(peer.id) ?? 0) + change
    if (load > 0) this.#load.set(peer.id, load)
    else this.#load.delete(peer.id)
  }

  #lieCount(id: string, now: number): number {
    const lies = this.#lies.get(id)
    return lies === undefined ? 0 : lies.count * 2 ** ((lies.at - now) / lieHalfLifeMillis)
  }
}
