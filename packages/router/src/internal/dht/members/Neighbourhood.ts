/** This node's place among the members: which of them it monitors, and which records it stores completely. */
import { closest, compare, type Position } from "../Distance.ts"
import { replication, settlingMillis } from "../rpc/Protocol.ts"
import { isSpeaker, type Member, type MemberTable } from "./MemberTable.ts"

export interface NeighbourhoodOptions {
  /** This node's own position. */
  readonly position: Position
  readonly members: MemberTable
  readonly now: () => number
  /** How often own records are sent again. */
  readonly refreshMillis: number
}

/** How long the list of neighbours is cached. */
const cacheMillis = 500
/** Up to this size every node monitors every other; beyond it, only its neighbours. */
export const everybodyUpTo = 128

export class Neighbourhood {
  readonly #options: NeighbourhoodOptions
  /** When this node started, or last woke up from a suspension. */
  #since: number
  #cached: { readonly since: number; readonly members: ReadonlyArray<Member> } = { since: -Infinity, members: [] }

  constructor(options: NeighbourhoodOptions) {
    this.#options = options
    this.#since = options.now()
  }

  /** This node was suspended: it may have missed records. */
  awoke(): void {
    this.#since = this.#options.now()
  }

  /** The members closest to this node: they store the same keys. */
  neighbours(): ReadonlyArray<Member> {
    const { members, now, position } = this.#options
    // To search thousands of members for each of thousands would be most of the work of a start.
    if (now() - this.#cached.since > cacheMillis) {
      this.#cached = { since: now(), members: members.closest(position, replication) }
    }
    return this.#cached.members
  }

  /** The members that this node monitors. */
  monitored(): ReadonlyArray<Member> {
    const { members } = this.#options
    return members.size <= everybodyUpTo ? [...members.values()] : this.neighbours()
  }

  /** Whether a member is left to its own neighbours, as in a large network. This node connects to it when it needs it. */
  isFar(member: Member): boolean {
    const { members, position } = this.#options
    return members.size > everybodyUpTo &&
      compare(position, member.position, this.neighbours().at(-1)?.position ?? member.position) > 0
  }

  /**
   * Whether this node has all records of a key. It then was among the closest when they were handed out, counting members
   * that have left since, and has been a member long enough to have been sent its share.
   */
  isKeeper(target: Position): boolean {
    const { members, position } = this.#options
    if (this.#isSettling) return false
    if (this.#keepsEverything) return true
    const self = { position }
    return closest(target, [self, ...this.#gone, ...members.closest(target, replication)], replication).includes(self)
  }

  /**
   * Whether this node has all records that exist: the network is so small that every node stores every record, and no
   * member is new, late or of another implementation, so that all have handed out their keys.
   */
  hasEverything(): boolean {
    const now = this.#options.now()
    return !this.#isSettling && this.#keepsEverything &&
      [...this.#options.members.values()].every((member) =>
        isSpeaker(member) && !member.late && now - member.since >= settlingMillis
      )
  }

  get #isSettling(): boolean {
    return this.#options.now() - this.#since < settlingMillis
  }

  get #keepsEverything(): boolean {
    const { size } = this.#options.members
    // The cheap test first: a large network need not count the members that left.
    return size < replication && size + this.#gone.length < replication
  }

  /** Members that have left since records were last handed out. */
  get #gone(): ReadonlyArray<Member> {
    const { members, now, refreshMillis } = this.#options
    return members.evictedSince(now() - refreshMillis)
  }
}
