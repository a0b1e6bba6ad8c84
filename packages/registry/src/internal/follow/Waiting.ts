/**
 * The state of one wait for a download that other nodes have in progress: whom to ask next, and when to give up. It knows neither clock,
 * network nor chance: `Follow` does what it says, and so does the simulation (`npm run simulate -- herd`). All times are in
 * milliseconds.
 *
 * Of a download, all nodes together make a tree: who is told that a source sends to no more asks those that get it from there.
 */
import { Data } from "effect"
import type { DownloadState } from "../share/DownloadState.ts"
import * as FollowPolicy from "./FollowPolicy.ts"
import type { Probed } from "./PeerProbe.ts"

export type Step = Data.TaggedEnum<{
  /** This node downloads from upstream itself. */
  GiveUp: {}
  /** Ask who downloads it, naming those that were waited for in vain; then call `leased`. */
  AskForLease: { readonly inVain: ReadonlyArray<string> }
  /** Look up those that have it, or more of it than this node, once more. */
  LookAgain: {}
  /** Ask this source in so many milliseconds how far it is; then call `answered` or `silent`. */
  AskSource: { readonly id: string; readonly afterMillis: number }
  Pause: { readonly millis: number }
}>
export const Step = Data.taggedEnum<Step>()

export interface WaitingOptions {
  /** This node's id. */
  readonly self: string
  /** The first byte wanted. */
  readonly start: number
  /** A node that this one was let down by. */
  readonly failed?: string | undefined
  /** When this node itself last knew that a download from upstream goes on: who knows no more than that shows nothing. */
  readonly knownAt?: number | undefined
  /** As `MirrorOptions.inProgressWait`. */
  readonly longestMillis: number
  /** Whether nodes ask for leases. */
  readonly leases: boolean
}

/** What nodes know at about the same time, they know from the same source: each hears of it a moment later than its own source. */
const sameMillis = 1000
/** How many sources are remembered. */
const maxSources = 16

export class Waiting {
  readonly #options: WaitingOptions
  readonly #knownAt: number
  /** Those that may have enough soon. The last one is asked that is not behind; the others if that one is gone. */
  #line: ReadonlyArray<string> = []
  /** When they last knew that a download from upstream goes on. Of one that was named by another, what that one knew. */
  readonly #knewAt = new Map<string, number>()
  /** Those that were waited for in vain. */
  readonly #inVain: Set<string>
  /** Those that download from upstream, as they say themselves, or as a node that decides says. */
  readonly #roots = new Set<string>()
  readonly #askedAt = new Map<string, number>()
  #begun: number | undefined
  #turn = 0
  /** When a source showed that a download from upstream goes on, or it was named by a node that decides. */
  #shownAt = -Infinity
  /** When a source showed it, or the wait began. */
  #provedAt = -Infinity
  #lookedAt = 0
  /** When it was last asked who downloads it, and who does. */
  #leasedAt = -Infinity
  #leased: string | undefined

  constructor(options: WaitingOptions) {
    this.#options = options
    this.#knownAt = options.failed === undefined ? -Infinity : options.knownAt ?? -Infinity
    this.#inVain = new Set(options.failed === undefined ? [] : [options.failed])
  }

  /** Whether a source has shown that a download from upstream goes on. */
  isHopeful(now: number): boolean {
    return now - this.#shownAt < FollowPolicy.goneMillis
  }

  /** When a download from upstream was last known to go on. */
  get provedAt(): number {
    return this.#provedAt
  }

  /** The id of the node whose download is waited for; undefined if there is none at this moment. */
  get source(): string | undefined {
    return this.#line.findLast((id) => !this.#isBehind(id)) ?? this.#line.at(-1)
  }

  /** Whether it knows less than another source: then it may get the download from this node, and wait for it. */
  #isBehind(id: string): boolean {
    return (this.#knewAt.get(id) ?? -Infinity) < this.#shownAt - sameMillis
  }

  /** How long it has waited, and for whom, in words. */
  told(now: number): string {
    const who = this.#inVain.size === 0 ? "" : ` in vain for ${[...this.#inVain].join(", ")}`
    return `waited for ${Math.round(now - (this.#begun ?? now))} ms${who}`
  }

  /** `turn` is as `FollowPolicy.turnOf` has it. */
  begin(now: number, turn: number): void {
    this.#turn = turn
    this.#begun = this.#lookedAt = now
    this.#provedAt = Math.max(this.#provedAt, now)
  }

  /** What to do now. The wait has begun. */
  next(now: number): Step {
    const { leases, longestMillis } = this.#options
    const patience = FollowPolicy.patienceMillis(this.#turn)
    if (now - (this.#begun ?? now) > FollowPolicy.maxWaitMillis(longestMillis, this.#turn)) return Step.GiveUp()
    if (now - this.#provedAt > FollowPolicy.unprovedMillis + patience) return Step.GiveUp()
    const { source } = this
    const silence = source === undefined ? 0 : FollowPolicy.goneMillis
    if (now - this.#lookedAt >= FollowPolicy.lookAgainMillis) {
      this.#lookedAt = now
      return Step.LookAgain()
    }
    if (now - this.#shownAt >= silence + (leases ? 0 : patience)) return this.#another(now)
    if (source === undefined) return Step.Pause({ millis: FollowPolicy.askAgainMillis })
    const asked = this.#askedAt.get(source) ?? -Infinity
    const afterMillis = Math.max(0, asked + FollowPolicy.askAgainMillis - now)
    this.#askedAt.set(source, now + afterMillis)
    return Step.AskSource({ id: source, afterMillis })
  }

  /** Nobody shows any more that a download goes on. */
  #another(now: number): Step {
    if (!this.#options.leases) return Step.GiveUp()
    const pause = this.#leasedAt + FollowPolicy.askAgainMillis - now
    if (pause > 0) return Step.Pause({ millis: pause })
    this.#leasedAt = now
    for (const id of this.#line) if (this.#roots.has(id)) this.#inVain.add(id)
    this.#line = []
    return Step.AskForLease({ inVain: [...this.#inVain] })
  }

  /** This node is to wait for the download of another one. */
  leased(id: string, now: number): void {
    // The time until the first node that decides has answered is not that of a source.
    if (this.#leased === undefined) this.#provedAt = now
    this.#shownAt = now
    this.#leased = id
    this.#roots.add(id)
    this.#knewAt.set(id, now)
    this.#ask([id])
  }

  /** A source has said how far its download is. */
  said(id: string, { ageMillis, instead, origin }: DownloadState, now: number): void {
    if (origin === "stalled") return this.gone(id)
    if (origin === "upstream") this.#roots.add(id)
    else if (
      id === this.#leased && now - this.#leasedAt > FollowPolicy.holdMillis && ageMillis > FollowPolicy.holdMillis
    ) {
      // It has the lease, and does not download.
      return this.gone(id)
    }
    const knewAt = now - ageMillis
    if (knewAt > this.#knownAt + sameMillis) {
      this.#provedAt = Math.max(this.#provedAt, knewAt)
      this.#shownAt = Math.max(this.#shownAt, knewAt)
    }
    this.#knewAt.set(id, knewAt)
    if (instead.length === 0) this.#ask([id])
    else {
      // The one that is named first is asked first, and this one only if there is no other.
      this.#line = [id, ...this.#line.filter((one) => one !== id)]
      for (const one of instead) this.#knewAt.set(one, Math.max(knewAt, this.#knewAt.get(one) ?? -Infinity))
      this.#ask(instead)
    }
  }

  /** A source was asked how far it is; true if it sends what is wanted. */
  answered(id: string, answer: Probed, now: number): boolean {
    if (answer._tag === "Held") return true
    if (answer._tag === "Gone") this.gone(id)
    else this.said(id, answer.state, now)
    return answer._tag === "Downloading" && answer.state.written > this.#options.start &&
      answer.state.instead.length === 0 && answer.state.origin !== "stalled"
  }

  /** A source has not answered in time: another one is asked, if there is one. */
  silent(id: string): void {
    this.#knewAt.delete(id)
    if (this.#line.length > 1) this.#line = [id, ...this.#line.filter((one) => one !== id)]
  }

  /** It is not there, or has nothing. */
  gone(id: string): void {
    this.#inVain.add(id)
    this.unknown(id)
  }

  /** This node cannot ask it, since it has not heard of it. */
  unknown(id: string): void {
    this.#knewAt.delete(id)
    this.#line = this.#line.filter((one) => one !== id)
  }

  /** The first of these is asked next. */
  #ask(ids: ReadonlyArray<string>): void {
    const named = ids.filter((id) => id !== this.#options.self)
    if (named.length === 1 && this.#line.at(-1) === named[0]) return
    this.#line = [...this.#line.filter((id) => !named.includes(id)), ...named.toReversed()].slice(-maxSources)
  }
}
