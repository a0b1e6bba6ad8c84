/** Decides whether this node is ready, and whether it is part of the network, for `Router.ready` and `Router.standing`. */
import { Effect } from "effect"
import { Standing } from "../../Router.ts"

export class Readiness {
  readonly #peers: () => number
  #ready = false
  #reason = "no bootstrap peer was asked yet"
  #warned = false

  /** `peers` counts the members that were heard from. */
  constructor(peers: () => number) {
    this.#peers = peers
  }

  get isReady(): boolean {
    return this.#ready
  }

  get isAlone(): boolean {
    return this.#peers() === 0
  }

  /** Why this node has no peer, if it has none. */
  get reason(): string {
    return this.#reason
  }

  get standing(): Standing {
    if (!this.#ready) return Standing.Joining({ reason: this.#reason })
    const peers = this.#peers()
    return peers === 0 ? Standing.Alone({ reason: this.#reason }) : Standing.Joined({ peers })
  }

  /** Why there is no peer yet. */
  waitsFor(reason: string): void {
    this.#reason = reason
  }

  /** There are peers. */
  joined(): void {
    this.#ready = true
    this.#warned = false
    this.#reason = "all peers have gone"
  }

  /** The first node of a network is ready without peers. */
  readonly firstOfNetwork: Effect.Effect<void> = Effect.suspend(() => {
    this.#reason = "the bootstrap sources name nobody else"
    if (this.#ready) return Effect.void
    this.#ready = true
    return Effect.logInfo(`ready, alone: ${this.#reason}`)
  })

  /** The time to look for a peer is over. */
  readonly graceOver: Effect.Effect<void> = Effect.suspend(() => {
    if (this.#ready) return Effect.void
    this.#ready = true
    return this.warnIfAlone
  })

  /** Warns once that a ready node which should have peers has none, until it has had some. */
  readonly warnIfAlone: Effect.Effect<void> = Effect.suspend(() => {
    if (!this.#ready || !this.isAlone || this.#warned) return Effect.void
    this.#warned = true
    return Effect.logWarning(`ready, alone: ${this.#reason}`)
  })
}
