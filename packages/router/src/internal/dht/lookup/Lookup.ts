/** Asks the members closest to a key who provides it, and does not wait for those that are slow. */
import type { Membership } from "../members/Membership.ts"
import { type Member, roundTripOf } from "../members/MemberTable.ts"
import { MessageType, type WirePeer } from "../rpc/Message.ts"
import { type Environment, message, replication, settlingMillis } from "../rpc/Protocol.ts"

/** Who is asked at once, and how many must have answered before "nobody has it" is certain. */
const askAtOnce = 3
const maxAsked = 8
/** When another one is asked beside those that have not answered: twice what the slowest usually needs, within these. */
const minHedgeMillis = 8
const maxHedgeMillis = 15
/** However many do not answer. */
const maxLookupMillis = 400

export interface LookupOptions {
  readonly membership: Membership
  readonly environment: Environment
  /** Calls back later; gives what cancels it. */
  readonly after: (millis: number, run: () => void) => () => void
}

const isNewcomer = ({ since }: Member, now: number): boolean => now - since < settlingMillis

/** The smaller, the sooner a member is asked: all of them are to keep the key's records. */
const rank = (member: Member, now: number): number => member.lastHeard === 0 ? 2 : isNewcomer(member, now) ? 1 : 0

/** Who is asked, in this order. Those that are late are left out, unless there is nobody else. */
const candidatesOf = ({ environment, membership }: LookupOptions, position: Uint8Array): Array<Member> => {
  const now = environment.now()
  const keepers = membership.members.closest(position, replication)
  const prompt = keepers.filter(({ late }) => !late)
  return (prompt.length > 0 ? prompt : keepers)
    .map((member) => ({ member, rank: rank(member, now) }))
    .toSorted((a, b) => a.rank - b.rank)
    .map(({ member }) => member)
}

/**
 * Asks until three have answered or `onProviders` returns false, which means that it wants no more. Resolves then, or when
 * nobody is left to ask.
 */
export const lookup = (
  options: LookupOptions,
  key: Uint8Array,
  position: Uint8Array,
  onProviders: (providers: ReadonlyArray<WirePeer>) => boolean
): Promise<void> =>
  new Promise((resolve) => {
    const { after, environment, membership } = options
    const candidates = candidatesOf(options, position)
    let asked = 0
    let asking = 0
    /** Answers that count: that a newcomer has no record says little. */
    let answered = 0
    let done = false
    let cancelHedge: () => void = () => undefined

    const finish = () => {
      done = true
      cancelHedge()
      cancelDeadline()
      resolve()
    }
    const cancelDeadline = after(maxLookupMillis, finish)

    const settle = () => {
      if (done) return
      if (answered >= askAtOnce) return finish()
      for (let missing = askAtOnce - asking - answered; missing > 0 && ask(); missing--);
      if (asking === 0) finish()
    }
    const hedge = (member: Member) => {
      cancelHedge()
      cancelHedge = after(Math.min(maxHedgeMillis, Math.max(minHedgeMillis, 2 * roundTripOf(member))), () => {
        if (!done) ask()
      })
    }
    const ask = (): boolean => {
      const member = asked < maxAsked ? candidates.shift() : undefined
      if (member === undefined) return false
      asked++
      asking++
      hedge(member)
      membership.query(member, message(MessageType.getProviders, key)).then(
        ({ closer, providers }) => {
          if (providers.length > 0 || !isNewcomer(member, environment.now())) answered++
          const news = membership.told(closer, member.id)
          // Who has just joined knows few, and learns of those that are to keep the key while it asks.
          candidates.push(...news)
          if (!done && providers.length > 0 && !onProviders(providers)) finish()
        },
        () => undefined
      ).finally(() => {
        asking--
        settle()
      })
      return true
    }
    settle()
  })
