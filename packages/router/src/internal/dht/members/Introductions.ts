/**
 * Gets to know members that others told of, one after the other: when a whole cluster starts, the news of who is there and
 * the first connections of all come before the many between all.
 */
import type { Member } from "./MemberTable.ts"

export interface AcquaintanceOptions {
  /** Members that are known so far, heard or not. */
  readonly known: () => number
  /** Whether this node is to look after a member. */
  readonly isWanted: (member: Member) => boolean
  /** Asks a member for a first answer; never rejects. */
  readonly meet: (member: Member) => Promise<void>
  readonly now: () => number
  readonly random: () => number
  /** Calls back later, unless the node has stopped by then. */
  readonly after: (millis: number, run: () => void) => void
}

const delayMillis = 500
/** A table that grows faster than this within the delay is one of a network that starts. */
const growth = 1.1
/** Pauses are in proportion to what a meeting costs; who does not answer in seconds has cost nothing. */
const minPauseMillis = 10
const pauseShare = 4
const maxPauseMillis = 1000

export class Acquaintance {
  readonly #options: AcquaintanceOptions
  #waiting: Array<Member> = []
  #running = false

  constructor(options: AcquaintanceOptions) {
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
