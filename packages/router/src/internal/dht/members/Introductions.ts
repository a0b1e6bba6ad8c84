/**
 * Meets the members that gossip named, one after the other. When a whole cluster starts, gossip about who is there and the
 * first connections of every node come before the many connections between all of them.
 */
import type { Member } from "./MemberTable.ts"

export interface IntroductionsOptions {
  /** How many members are known so far, heard from or not. */
  readonly known: () => number
  /** Whether this node monitors the member: only those are met. */
  readonly isWanted: (member: Member) => boolean
  /** Sends a first request to a member; never rejects. */
  readonly meet: (member: Member) => Promise<void>
  readonly now: () => number
  readonly random: () => number
  /** Calls back later, unless the node has stopped by then. */
  readonly after: (millis: number, run: () => void) => void
}

const delayMillis = 500
/** A table that grows faster than this within the delay belongs to a network that starts. */
const growth = 1.1
/** A pause is proportional to what the meeting before it cost. A member that took seconds to time out cost nothing. */
const minPauseMillis = 10
const pauseShare = 4
const maxPauseMillis = 1000

export class Introductions {
  readonly #options: IntroductionsOptions
  #waiting: Array<Member> = []
  #running = false

  constructor(options: IntroductionsOptions) {
    this.#options = options
  }

  add(members: ReadonlyArray<Member>): void {
    this.#waiting.push(...members)
    if (this.#running || this.#waiting.length === 0) return
    this.#running = true
    this.#startAfter(this.#options.known())
  }

  #startAfter(known: number): void {
    this.#options.after(delayMillis * (1 + this.#options.random()), () => {
      const now = this.#options.known()
      if (now > growth * known) this.#startAfter(now)
      else void this.#next()
    })
  }

  async #next(): Promise<void> {
    let member = this.#waiting.shift()
    while (member !== undefined && (member.lastHeard > 0 || !this.#options.isWanted(member))) {
      member = this.#waiting.shift()
    }
    if (member === undefined) {
      this.#running = false
      return
    }
    const begun = this.#options.now()
    await this.#options.meet(member)
    const pause = Math.min(maxPauseMillis, minPauseMillis + pauseShare * (this.#options.now() - begun))
    this.#options.after(pause, () => void this.#next())
  }
}
