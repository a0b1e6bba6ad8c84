/** Where a node lies among the members: whose keys are its own too, whom it looks after, and which records it has whole. */
import { closest, compare, type Position } from "../Distance.ts"
import { replication, settlingMillis } from "../rpc/Protocol.ts"
import { isSpeaker, type Member, type Members } from "./MemberTable.ts"

export interface RegionOptions {
  readonly position: Position
  readonly members: Members
  readonly now: () => number
  /** When own records are sent again. */
  readonly refreshMillis: number
}

/** The members closest to this node are taken to be the same for so long. */
const sameMillis = 500
/** Up to here everybody looks after everybody; in a larger network each after its own region. */
export const everybodyUpTo = 128

export class Region {
  readonly #options: RegionOptions
  /** When this node began, or began again after it was suspended. */
  #since: number
  #near: { readonly since: number; readonly members: ReadonlyArray<Member> } = { since: -Infinity, members: [] }

  constructor(options: RegionOptions) {
    this.#options = options
    this.#since = options.now()
  }

  /** This node was suspended: it may have missed records. */
  awoke(): void {
    this.#since = this.#options.now()
  }

  /** The members whose keys are this node's too. */
  neighbours(): ReadonlyArray<Member> {
    const { members, now, position } = this.#options
    // Looking through thousands for each of thousands would be most of the work of a start.
    if (now() - this.#near.since > sameMillis) {
      this.#near = { since: now(), members: members.closest(position, replication) }
    }
    return this.#near.members
  }

  /** Members that this node looks after. */
  watched(): ReadonlyArray<Member> {
    const { members } = this.#options
    return members.size <= everybodyUpTo ? [...members.values()] : this.neighbours()
  }

  /** In a large network only the neighbours of a peer look after it; others get to know it when they need it. */
  isFar(member: Member): boolean {
    const { members, position } = this.#options
    return members.size > everybodyUpTo &&
      compare(position, member.position, this.neighbours().at(-1)?.position ?? member.position) > 0
  }

  /**
   * Whether this node has all records of a key: it was among the closest when they were handed out, those that have gone
   * since included, and has been there for long enough to be handed its share.
   */
  isKeeper(target: Position): boolean {
    const { members, position } = this.#options
    if (this.#isSettling) return false
    if (this.#keepsEverything) return true
    const self = { position }
    return closest(target, [self, ...this.#gone, ...members.closest(target, replication)], replication).includes(self)
  }

  /**
   * Whether this node has all records there are: the network is so small that everybody keeps everything, and nobody is
   * new, late or of another kind, who may not have handed out its keys yet.
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
    // In a large network nobody has to look for those that have gone.
    return size < replication && size + this.#gone.length < replication
  }

  /** Those that have gone since records were handed out. */
  get #gone(): ReadonlyArray<Member> {
    const { members, now, refreshMillis } = this.#options
    return members.evictedSince(now() - refreshMillis)
  }
}
