/**
 * Finds the peers of the cluster that provide a key.
 *
 * The answer may be out of date: a lookup may miss a provider that advertised a moment ago, and may name one that has just gone.
 * Callers try the peers they get, and carry on when none works.
 */
import { Context, Data, Effect, Layer, Stream } from "effect"
import type { ContentKey } from "./ContentKey.ts"
import type { Peer, PeerFacts } from "./Peer.ts"

/** The router has not joined a network yet; `reason` says what it waits for. Callers do without peers, or retry later. */
export class RouterNotReady extends Data.TaggedError("RouterNotReady")<{ readonly reason: string }> {
  override get message() {
    return `the router is not ready: ${this.reason}`
  }
}

/** Whether a node is part of the network. */
export type Standing = Data.TaggedEnum<{
  /** The node looks for its first peers; lookups fail with `RouterNotReady`. */
  Joining: { readonly reason: string }
  /** The node has peers. */
  Joined: { readonly peers: number }
  /** The node has no peers, so that lookups find nobody. `reason` says whether it should have some. */
  Alone: { readonly reason: string }
}>
/** Constructors and matchers of `Standing`. */
export const Standing = Data.taggedEnum<Standing>()

/** The network that routers in memory share: the members, and the providers of each key. Tests may write to it. */
export interface MemoryNetwork {
  readonly members: Map<string, Peer>
  readonly providers: Map<ContentKey, Set<string>>
}

/**
 * Advertises what this node provides, and looks up who provides a key.
 *
 * Layers: `Libp2p.layer`, a member of a network, and `Router.layerMemory`, routers of one process for tests and examples. Both
 * pass the suite `RouterConformance`.
 */
export class Router extends Context.Service<Router, {
  /**
   * Adds `keys` to what this node provides, and keeps their records alive until they are withdrawn or the router stops.
   * Returns when the members that store the records have them. If it fails with `RouterNotReady`, the keys are added
   * nevertheless, and are handed out as soon as there are peers. Idempotent.
   */
  readonly advertise: (keys: ReadonlyArray<ContentKey>) => Effect.Effect<void, RouterNotReady>
  /** Stops providing `keys`. Peers forget them at once if the protocol allows it, or else when the records expire. */
  readonly withdraw: (keys: ReadonlyArray<ContentKey>) => Effect.Effect<void>
  /**
   * The peers that provide `key`, without this node, each once and as soon as it is found. Ends when `count` were found or
   * when it is certain that there are no more. Fails with `RouterNotReady` before the node has joined.
   */
  readonly lookup: (
    key: ContentKey,
    options: { readonly count: number }
  ) => Stream.Stream<Peer, RouterNotReady>
  /**
   * True once lookups make sense, and from then on: the node has met a peer, or the bootstrap sources were asked and name
   * nobody else, or the grace period is over.
   */
  readonly ready: Effect.Effect<boolean>
  /** Whether this node is part of the network now. */
  readonly standing: Effect.Effect<Standing>
  /**
   * Says goodbye: peers forget this node and its keys, and no longer name it to others. Lookups still work; keys that are
   * advertised from now on are provided to nobody. Idempotent.
   */
  readonly leave: Effect.Effect<void>
  /** The members of the network known now, without this node. */
  readonly peers: Effect.Effect<ReadonlyArray<PeerFacts>>
  /** This node, with the addresses that it announces. */
  readonly self: Effect.Effect<Peer>
}>()("@spegel-ts/router/Router") {
  /** An empty network for `layerMemory`. */
  static readonly memoryNetwork = (): MemoryNetwork => ({ members: new Map(), providers: new Map() })

  /** A member of a network in memory. When the layer's scope closes it leaves, and its keys go with it. */
  static readonly layerMemory = (
    options: { readonly network: MemoryNetwork; readonly self: Peer }
  ): Layer.Layer<Router> =>
    Layer.effect(
      this,
      Effect.acquireRelease(Effect.sync(() => joinInMemory(options.network, options.self)), ({ leave }) => leave)
    )
}

const joinInMemory = ({ members, providers }: MemoryNetwork, self: Peer): typeof Router.Service => {
  const withdraw = (keys: Iterable<ContentKey>) => {
    for (const key of keys) providers.get(key)?.delete(self.id)
  }
  const others = () => [...members.values()].filter(({ id }) => id !== self.id)
  let left = false
  members.set(self.id, self)
  return Router.of({
    advertise: (keys) =>
      Effect.sync(() => {
        if (left) return
        for (const key of keys) providers.set(key, (providers.get(key) ?? new Set()).add(self.id))
      }),
    withdraw: (keys) => Effect.sync(() => withdraw(keys)),
    lookup: (key, { count }) =>
      Stream.suspend(() => {
        const ids = [...providers.get(key) ?? []].filter((id) => id !== self.id)
        return Stream.fromIterable(ids.flatMap((id) => members.get(id) ?? []))
      }).pipe(Stream.take(count)),
    ready: Effect.succeed(true),
    standing: Effect.sync(() => {
      const peers = others().length
      return peers > 0 ? Standing.Joined({ peers }) : Standing.Alone({ reason: "nobody else is in the network" })
    }),
    leave: Effect.sync(() => {
      left = true
      members.delete(self.id)
      withdraw(providers.keys())
    }),
    peers: Effect.sync(others),
    self: Effect.succeed(self)
  })
}
