/**
 * What this node provides, and the care for its records: handed out in batches, one for each member that is to keep them,
 * to newcomers when they come, and again before they expire.
 */
import { type Position, positionOf } from "../Distance.ts"
import type { Membership } from "../members/Membership.ts"
import { isSpeaker, type Member } from "../members/MemberTable.ts"
import { bytesOf, type Environment, message, NoteType, replication, textOf, type Transport } from "../rpc/Protocol.ts"

export interface OwnKeysOptions {
  readonly membership: Membership
  readonly transport: Transport
  readonly environment: Environment
  readonly refreshMillis: number
  /** Calls back later, unless the node has stopped by then. */
  readonly after: (millis: number, run: () => void) => void
}

const membersAtOnce = 8
/** Keys are text, which is kept once, until they are sent. */
const keysPerRequest = 1000
/** Keys that are assigned before others have a turn: lookups go on meanwhile. */
const keysPerTurn = 64
const retryMillis = 1000
/** Keys are handed out again after this share of the interval at the earliest. */
const leastSpread = 0.8
/** So many are looked at one by one; of more it is cheaper to look for all keepers of a key. */
const fewNewcomers = 5

export class OwnKeys {
  /** Keys with the time at which they were handed out. */
  readonly #keys = new Map<string, number>()
  readonly #options: OwnKeysOptions
  /** No key is due before. */
  #dueAt = Infinity
  constructor(options: OwnKeysOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#keys.size
  }

  has(key: string): boolean {
    return this.#keys.has(key)
  }

  async advertise(keys: ReadonlyArray<Uint8Array>): Promise<void> {
    const now = this.#options.environment.now()
    const texts = keys.map(textOf)
    for (const key of texts) this.#keys.set(key, now)
    this.#dueAt = Math.min(this.#dueAt, now + leastSpread * this.#options.refreshMillis)
    await this.#handOut(texts)
  }

  withdraw(keys: ReadonlyArray<Uint8Array>): void {
    for (const key of keys) this.#keys.delete(textOf(key))
    for (const member of this.#options.membership.members.values()) this.#tellWithdrawn(member, keys)
  }

  /** Forgets them without a word. */
  clear(): void {
    this.#keys.clear()
  }

  #tellWithdrawn(member: Member, keys: ReadonlyArray<Uint8Array>): void {
    if (!isSpeaker(member) || keys.length === 0) return
    this.#options.transport.tell(member, keys.map((key) => message(NoteType.withdraw, key)))
  }

  /** Gives newcomers the keys that they are to keep. */
  handToNewcomers(newcomers: ReadonlySet<Member>): void {
    void this.#handOut([...this.#keys.keys()], newcomers)
  }

  /**
   * Hands out again what is due. Keys are due at times of their own, spread over a fifth of the interval. `all`: others
   * may have forgotten this node meanwhile.
   */
  refresh(now: number, all: boolean): void {
    if (!all && now <= this.#dueAt) return
    const { refreshMillis } = this.#options
    const due: Array<string> = []
    this.#dueAt = now + leastSpread * refreshMillis
    for (const [key, since] of this.#keys) {
      const dueAt = since + (leastSpread + (1 - leastSpread) * (key.charCodeAt(key.length - 1) / 256)) * refreshMillis
      if (all || now > dueAt) due.push(key)
      else this.#dueAt = Math.min(this.#dueAt, dueAt)
    }
    for (const key of due) this.#keys.set(key, now)
    if (due.length > 0) void this.#handOut(due)
  }

  async #handOut(keys: ReadonlyArray<string>, only?: ReadonlySet<Member>): Promise<void> {
    const { after, membership, transport } = this.#options
    const again: Array<string> = []
    // The closest to a key are asked for it first, and get it first.
    const work = (await this.#byKeeper(keys, only)).entries()
    const send = async () => {
      for (const [member, assigned] of work) {
        for (let from = 0; from < assigned.length; from += keysPerRequest) {
          const batch = assigned.slice(from, from + keysPerRequest).filter((key) => this.#keys.has(key))
          try {
            await transport.provide(member, batch.map(bytesOf))
            membership.heard(member)
            // Withdrawn meanwhile: that word may have been the faster one.
            this.#tellWithdrawn(member, batch.filter((key) => !this.#keys.has(key)).map(bytesOf))
          } catch (error) {
            membership.failed(member, error)
            if (membership.members.get(member.id) === member) again.push(...assigned.slice(from))
            break
          }
        }
      }
    }
    await Promise.all(Array.from({ length: membersAtOnce }, send))
    // A keeper that was too busy gets its keys a moment later; one that is gone has been evicted.
    if (again.length === 0) return
    after(retryMillis, () => void this.#handOut([...new Set(again)].filter((key) => this.#keys.has(key))))
  }

  /** Groups keys by keeper, so that each peer is sent all of its keys together. */
  async #byKeeper(
    keys: ReadonlyArray<string>,
    only: ReadonlySet<Member> | undefined
  ): Promise<Map<Member, Array<string>>> {
    const batches = new Map<Member, Array<string>>()
    for (const [index, key] of keys.entries()) {
      if (index % keysPerTurn === keysPerTurn - 1) await new Promise<void>((resolve) => this.#options.after(0, resolve))
      for (const keeper of this.#keepersOf(positionOf(bytesOf(key)), only)) {
        const batch = batches.get(keeper)
        if (batch === undefined) batches.set(keeper, [key])
        else batch.push(key)
      }
    }
    return batches
  }

  #keepersOf(position: Position, only: ReadonlySet<Member> | undefined): ReadonlyArray<Member> {
    const { members } = this.#options.membership
    if (only !== undefined && only.size <= fewNewcomers) {
      return [...only].filter((member) => members.isAmongClosest(member, position, replication))
    }
    const keepers = members.closest(position, replication)
    return only === undefined ? keepers : keepers.filter((keeper) => only.has(keeper))
  }
}
