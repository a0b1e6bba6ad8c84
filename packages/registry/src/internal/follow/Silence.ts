/**
 * The state of one body that comes from a download which a peer has in progress: when to ask whether the peer is there, and when to leave
 * it. Such a peer may be silent for as long as its own source is. Like `Waiting`, it knows neither clock nor network. All times are
 * in milliseconds.
 */
import { Data } from "effect"
import * as FollowPolicy from "./FollowPolicy.ts"
import type { Probed } from "./PeerProbe.ts"

export type Step = Data.TaggedEnum<{
  Pause: { readonly millis: number }
  /** Ask the peer how far it is; it has so long to answer. Then call `answered`, if it did. */
  AskPeer: { readonly millis: number }
  /** No byte can be expected from it. */
  Leave: { readonly waitedMillis: number }
}>
export const Step = Data.taggedEnum<Step>()

export interface SilenceOptions {
  /** As `FollowPolicy.turnOf` has it. */
  readonly turn: number
  /** As `MirrorOptions.inProgressWait`. */
  readonly longestMillis: number
}

const lookEveryMillis = 250
/** A peer that sends is asked now and then, too: whether it has more, so that it owes some speed. */
const askEveryMillis = 2000
/** Bytes on the way do not mean that it has more. */
const leastMore = 2 * 1024 * 1024

export class Silence {
  readonly #options: SilenceOptions
  #taken = 0
  /** When bytes came, or the peer had some to send. */
  #grewAt: number
  /** When it was last known to be there. */
  #shownAt: number
  #askedAt: number
  #provedAt: number
  /** Whether it has much more than it has sent. */
  hasMore = false

  constructor(now: number, options: SilenceOptions) {
    this.#options = options
    this.#grewAt =
      this.#shownAt =
      this.#askedAt =
      this.#provedAt =
        now
  }

  /** When a download from upstream was last known to go on. */
  get provedAt(): number {
    return this.#provedAt
  }

  /** What to do now that `taken` bytes have come. */
  next(taken: number, now: number): Step {
    if (taken > this.#taken) {
      this.#taken = taken
      this.#grewAt = this.#shownAt = this.#provedAt = now
    }
    const { longestMillis, turn } = this.#options
    const left = Math.min(
      this.#shownAt + FollowPolicy.brokenMillis,
      this.#provedAt + FollowPolicy.unprovedMillis + FollowPolicy.patienceMillis(turn),
      this.#grewAt + longestMillis
    ) - now
    if (left <= 0) return Step.Leave({ waitedMillis: Math.round(now - this.#grewAt) })
    const isSilent = now - this.#shownAt >= FollowPolicy.silenceMillis
    const due = this.#askedAt + (isSilent ? FollowPolicy.askAgainMillis : askEveryMillis) - now
    if (due > 0) return Step.Pause({ millis: Math.min(due, left, lookEveryMillis) })
    this.#askedAt = now
    return Step.AskPeer({ millis: Math.min(left, FollowPolicy.answerMillis) })
  }

  /** Why no more bytes will come, if that is so. `end` is the first byte that had not come when the peer was asked. */
  answered(answer: Probed, end: number, now: number): string | undefined {
    if (answer._tag === "Gone") return "its own download has ended"
    if (answer._tag === "Downloading" && answer.state.origin === "stalled") return "its own download stands still"
    const written = answer._tag === "Held" ? Infinity : answer.state.written
    this.hasMore = written > end + leastMore
    this.#shownAt = now
    // The client is the slower one.
    if (written > end) this.#grewAt = now
    this.#provedAt = Math.max(this.#provedAt, answer._tag === "Held" ? now : now - answer.state.ageMillis)
    return undefined
  }
}
