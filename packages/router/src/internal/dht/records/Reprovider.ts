/**
 * The keys that this node provides. It hands their records out in batches, one for each member that is to store them: when
 * they are advertised, to new members, and again before the records expire.
 */
import { type Position, positionOf } from "../Distance.ts"
import type { Membership } from "../members/Membership.ts"
import { isSpeaker, type Member } from "../members/MemberTable.ts"
import { bytesOf, type Core, GossipType, message, replication, textOf } from "../rpc/Protocol.ts"

export interface ReproviderOptions extends Core {
  readonly membership: Membership
  /** How often records are sent again. */
  readonly refreshMillis: number
}

const membersAtOnce = 8
/** Keys are stored as text, which all batches share, and turned into bytes when they are sent. */
const keysPerRequest = 1000
/** The event loop runs other work after this many keys were assigned: lookups go on meanwhile. */
const keysPerTurn = 64
const retryMillis = 1000
/** Each key is sent again at a time of its own, between this share of the interval and all of it. */
const leastSpread = 0.8
/** Up to this many newcomers are checked one by one. For more it is cheaper to search for all keepers of each key. */
const fewNewcomers = 5

export class Reprovider {
  /** Each key with the time at which it was last handed out. */
  readonly #keys = new Map<string, number>()
  readonly #options: ReproviderOptions
  /** No key is due before. */
  #dueAt = Infinity

  constructor(options: ReproviderOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#keys.size
  }

  has(key: string): boolean {
    return this.#keys.has(key)
  }

  /** Adds keys; resolves when their keepers have the records. */
  async advertise(keys: ReadonlyArray<Uint8Array>): Promise<void> {
    const now = this.#options.environment.now()
    const texts = keys.map(textOf)
    for (const key of texts) this.#keys.set(key, now)
    this.#dueAt = Math.min(this.#dueAt, now + leastSpread * this.#options.refreshMillis)
    await this.#handOut(texts)
  }

  /** Removes keys, and tells all members that speak our gossip protocol. */
  withdraw(keys: ReadonlyArray<Uint8Array>): void {
    for (const key of keys) this.#keys.delete(textOf(key))
    for (const member of this.#options.membership.members.values()) this.#tellWithdrawn(member, keys)
  }

  /** Removes all keys without telling anybody. */
  clear(): void {
    this.#keys.clear()
  }

  #tellWithdrawn(member: Member, keys: ReadonlyArray<Uint8Array>): void {
    if (!isSpeaker(member) || keys.length === 0) return
    this.#options.transport.gossip(member, keys.map((key) => message(GossipType.withdraw, key)))
  }

  /** Hands new members the records that they are to store. */
  handToNewcomers(newcomers: ReadonlySet<Member>): void {
    void this.#handOut([...this.#keys.keys()], newcomers)
  }

  /** Hands out again what is due. With `all` it is everything: other members may have dropped this node's records. */
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
    const failed = new Set<string>()
    // The closest member is first: a lookup asks it first.
    const work = (await this.#byKeeper(keys, only)).entries()
    const sendOneByOne = async () => {
      for (const [member, assigned] of work) {
        for (const key of await this.#send(member, assigned)) failed.add(key)
      }
    }
    await Promise.all(Array.from({ length: membersAtOnce }, sendOneByOne))
    if (failed.size === 0) return
    this.#options.after(retryMillis, () => void this.#handOut([...failed].filter((key) => this.#keys.has(key))))
  }

  /**
   * Sends a member the records of its keys. Returns the keys that it did not take because it was too busy; one that did
   * not answer at all has been evicted, and other members store its keys.
   */
  async #send(member: Member, keys: ReadonlyArray<string>): Promise<ReadonlyArray<string>> {
    const { membership, transport } = this.#options
    for (let from = 0; from < keys.length; from += keysPerRequest) {
      const batch = keys.slice(from, from + keysPerRequest).filter((key) => this.#keys.has(key))
      try {
        await transport.provide(member, batch.map(bytesOf))
        membership.heard(member)
        // The withdrawal of a key may have overtaken its record.
        this.#tellWithdrawn(member, batch.filter((key) => !this.#keys.has(key)).map(bytesOf))
      } catch (error) {
        membership.detector.failed(member, error)
        return membership.members.get(member.id) === member ? keys.slice(from) : []
      }
    }
    return []
  }

  /** Groups keys by keeper, so that each member is sent all of its keys together. */
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
