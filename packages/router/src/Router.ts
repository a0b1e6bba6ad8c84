/**
 * Which peers of the cluster hold a key. Layers: `Memory` (one process, for tests and examples) and `Libp2p`.
 *
 * A router forgets: a lookup may miss a holder for a moment after it advertised, and may name one that has just
 * gone. Callers try the peers they get and carry on when none works.
 */
import { Context, Data, type Effect, type Stream } from "effect"
import type { ContentKey } from "./ContentKey.ts"
import type { Peer, PeerFacts } from "./Peer.ts"

/** The router is not part of a network yet; `reason` says what it waits for. */
export class RouterNotReady extends Data.TaggedError("RouterNotReady")<{ readonly reason: string }> {
  override get message() {
    return `the router is not ready: ${this.reason}`
  }
}

/** How a node stands to the network. */
export type Standing = Data.TaggedEnum<{
  /** Peers are being looked for; lookups do not make sense yet. */
  Joining: { readonly reason: string }
  Joined: { readonly peers: number }
  /** Lookups find nobody. `reason` says whether that is as it should be. */
  Alone: { readonly reason: string }
}>
export const Standing = Data.taggedEnum<Standing>()

/** Every layer of this service passes `RouterConformance`. */
export class Router extends Context.Service<Router, {
  /**
   * Adds `keys` to what this node provides, and keeps their records alive (refreshed before they expire) until they
   * are withdrawn or the router stops. Returns when the records were handed to the peers responsible for them; keys
   * stay added even if it fails, and are handed out as soon as the router is ready. Idempotent.
   */
  readonly advertise: (keys: ReadonlyArray<ContentKey>) => Effect.Effect<void, RouterNotReady>
  /** Stops providing `keys`. Peers forget them at once where the protocol allows it, else when the records expire. */
  readonly withdraw: (keys: ReadonlyArray<ContentKey>) => Effect.Effect<void>
  /**
   * The peers that provide `key`, each once, as they are found, this node excluded. Ends when `count` were found or
   * when it is sure that there are no more.
   */
  readonly lookup: (
    key: ContentKey,
    options: { readonly count: number }
  ) => Stream.Stream<Peer, RouterNotReady>
  /**
   * True once lookups make sense, and then for good: a peer was met, the bootstrap sources were asked and name nobody
   * else, or the time for both has passed.
   */
  readonly ready: Effect.Effect<boolean>
  readonly standing: Effect.Effect<Standing>
  /**
   * Says goodbye: peers forget this node and what it provides, and send nobody here any more. Lookups still work; what is
   * advertised from now on is provided to nobody. Idempotent.
   */
  readonly leave: Effect.Effect<void>
  /** The members of the network known now, this node excluded. */
  readonly peers: Effect.Effect<ReadonlyArray<PeerFacts>>
  /** This node, with the addresses it announces. */
  readonly self: Effect.Effect<Peer>
}>()("@spegel-ts/router/Router") {}
