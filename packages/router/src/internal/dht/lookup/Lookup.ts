/** One lookup: asks the members closest to a key who provides it, and hedges to further ones when those are slow. */
import type { Membership } from "../members/Membership.ts"
import { type Member, roundTripOf } from "../members/MemberTable.ts"
import { MessageType, type WirePeer } from "../rpc/Message.ts"
import { type Core, message, replication, settlingMillis } from "../rpc/Protocol.ts"

/** How many members are asked at once. All of them have to answer before it is certain that nobody provides the key. */
const askAtOnce = 3
const maxAsked = 8
/** How long to wait before also asking the next member: twice the usual round trip of the last one, within these bounds. */
const minHedgeMillis = 8
const maxHedgeMillis = 15
/** A lookup ends after this time, even if no member has answered. */
const maxLookupMillis = 400

export interface LookupOptions extends Core {
  readonly membership: Membership
}

/** The key to look for, and the callback for its providers. */
export interface Wanted {
  readonly key: Uint8Array
  /** The key's position. */
  readonly position: Uint8Array
  /** Called with the providers that each answer names; returns false when no more are wanted. */
  readonly onProviders: (providers: ReadonlyArray<WirePeer>) => boolean
}

/** Asks until three members have answered or no more providers are wanted. Resolves then, or when nobody is left to ask. */
export const lookup = (options: LookupOptions, wanted: Wanted): Promise<void> =>
  new Promise((resolve) => new Lookup(options, wanted, resolve).start())

const isNewcomer = ({ since }: Member, now: number): boolean => now - since < settlingMillis

/** Members with a smaller rank are asked first, though all of them store the key's records. */
const rank = (member: Member, now: number): number => member.lastHeard === 0 ? 2 : isNewcomer(member, now) ? 1 : 0

/** The members to ask, in this order. Late ones are left out unless all are late. */
const candidatesOf = ({ environment, membership }: LookupOptions, position: Uint8Array): Array<Member> => {
  const now = environment.now()
  const keepers = membership.members.closest(position, replication)
  const prompt = keepers.filter(({ late }) => !late)
  return (prompt.length > 0 ? prompt : keepers)
    .map((member) => ({ member, rank: rank(member, now) }))
    .toSorted((a, b) => a.rank - b.rank)
    .map(({ member }) => member)
}

class Lookup {
  readonly #options: LookupOptions
  readonly #wanted: Wanted
  readonly #onDone: () => void
  readonly #candidates: Array<Member>
  readonly #cancelDeadline: () => void
  #cancelHedge: () => void = () => undefined
  #asked = 0
  #unanswered = 0
  /** Answers that count. A newcomer that knows no provider does not: it may not have been sent its records yet. */
  #answered = 0
  #done = false

  constructor(options: LookupOptions, wanted: Wanted, onDone: () => void) {
    this.#options = options
    this.#wanted = wanted
    this.#onDone = onDone
    this.#candidates = candidatesOf(options, wanted.position)
    this.#cancelDeadline = options.after(maxLookupMillis, () => this.#finish())
  }

  start(): void {
    this.#settle()
  }

  /** Keeps three requests going, and ends the lookup when it is over. */
  #settle(): void {
    if (this.#done) return
    if (this.#answered >= askAtOnce) return this.#finish()
    for (let missing = askAtOnce - this.#unanswered - this.#answered; missing > 0 && this.#askNext(); missing--);
    if (this.#unanswered === 0) this.#finish()
  }

  /** Asks the next candidate; false if there is none. */
  #askNext(): boolean {
    const member = this.#asked < maxAsked ? this.#candidates.shift() : undefined
    if (member === undefined) return false
    this.#asked++
    this.#unanswered++
    this.#hedgeAfter(member)
    void this.#ask(member).finally(() => {
      this.#unanswered--
      this.#settle()
    })
    return true
  }

  #hedgeAfter(member: Member): void {
    const delay = Math.min(maxHedgeMillis, Math.max(minHedgeMillis, 2 * roundTripOf(member)))
    this.#cancelHedge()
    this.#cancelHedge = this.#options.after(delay, () => {
      if (!this.#done) this.#askNext()
    })
  }

  #ask(member: Member): Promise<void> {
    const { environment, membership } = this.#options
    const { key, onProviders } = this.#wanted
    return membership.detector.query(member, message(MessageType.getProviders, key)).then(({ closer, providers }) => {
      if (providers.length > 0 || !isNewcomer(member, environment.now())) this.#answered++
      // A node that has just joined knows few members. The answers name those that store the key's records.
      this.#candidates.push(...membership.learn(closer, member.id))
      if (!this.#done && providers.length > 0 && !onProviders(providers)) this.#finish()
    }, () => undefined)
  }

  #finish(): void {
    this.#done = true
    this.#cancelHedge()
    this.#cancelDeadline()
    this.#onDone()
  }
}
