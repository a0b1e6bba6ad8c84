/**
 * The layer of `Router` for a cluster: a member of a libp2p network (TCP, noise or TLS, yamux) whose DHT speaks Kademlia's
 * wire protocol under `/spegel/kad/1.0.0`, so that Go Spegel's nodes and these are one network.
 *
 * It is a module of its own so that programs which use `Router.layerMemory` alone do not load libp2p.
 */
import type { Multiaddr } from "@multiformats/multiaddr"
import * as Background from "@spegel-ts/background/Background"
import { type Cause, Clock, type Duration, Effect, Layer, Option, Queue, Stream } from "effect"
import type { BlockList } from "node:net"
import { Bootstrap } from "./Bootstrap.ts"
import * as ContentKey from "./ContentKey.ts"
import type { Identity } from "./Identity.ts"
import type { Provider } from "./internal/dht/Dht.ts"
import type { Member } from "./internal/dht/members/MemberTable.ts"
import { ipOfBytes } from "./internal/host/DhtEnvironment.ts"
import * as DhtNode from "./internal/host/DhtNode.ts"
import * as Libp2pHost from "./internal/host/Libp2pHost.ts"
import * as PeerNews from "./internal/host/PeerNews.ts"
import * as RouterMetrics from "./internal/host/RouterMetrics.ts"
import { DialFailed } from "./internal/joining/BootstrapDialer.ts"
import * as Joining from "./internal/joining/Joining.ts"
import type { Peer, PeerFacts } from "./Peer.ts"
import * as PeerAddress from "./PeerAddress.ts"
import { Router, RouterNotReady } from "./Router.ts"

/** The settings of a member of the network: its addresses and zone, the lifetime of its records, and how long it waits for peers. */
export interface Libp2pOptions {
  /** IP to listen on; none means all of them. */
  readonly host: Option.Option<string>
  /** TCP port to listen on. */
  readonly port: number
  /** TCP port of the service that runs beside this router, told to peers as `Peer.servicePort`. Default: no service. */
  readonly servicePort?: number
  /** The zone that this node is in, such as a data centre. Lookups name providers that have proved to be in it first. */
  readonly zone?: string | undefined
  /** How long a record lives that a node of this implementation sent. Default 10 minutes. */
  readonly recordTtl?: Duration.Duration
  /** How often own records are handed out again. Default 9 minutes. */
  readonly refreshInterval?: Duration.Duration
  /** The ranges in which the addresses of all peers lie, from `PeerAddress.parseCidrs`. Default: anywhere. */
  readonly peerCidrs?: BlockList | undefined
  /** How long to look for a peer before this node is ready without one. Default 15 seconds. */
  readonly joinGrace?: Duration.Duration
}

/**
 * A member of the cluster's network, listening while the layer's scope is open. When it closes, the member says goodbye, so
 * that peers forget it at once. `PeerAuth` in the context says whether peers have to prove that they know the cluster key; without
 * it, nobody proves anything. Fails with `RouterListenFailed` if the address cannot be listened on.
 */
export const layer = (
  options: Libp2pOptions
): Layer.Layer<Router, Libp2pHost.RouterListenFailed, Bootstrap | Identity> => Layer.effect(Router, make(options))

const make = Effect.fnUntraced(function*(options: Libp2pOptions) {
  const bootstrap = yield* Bootstrap
  const node = yield* DhtNode.make(options)
  const { dht } = node
  const joining = yield* Joining.make({ bootstrap, grace: options.joinGrace, network: networkView(node, options) })
  yield* Background.keepRunning("news of peers", peerNews(node))
  const toPeer = (provider: Provider) => peerOf(node.accepted, options.servicePort, provider)
  return Router.of({
    advertise: Effect.fn("Libp2p.advertise")((keys) =>
      Effect.andThen(
        Effect.promise(() => dht.advertise(keys.map(ContentKey.toDhtKey))),
        whenReady(joining, Effect.void)
      )
    ),
    withdraw: Effect.fn("Libp2p.withdraw")((keys) => Effect.sync(() => dht.withdraw(keys.map(ContentKey.toDhtKey)))),
    lookup: yield* makeLookup(node, joining, toPeer),
    leave: Effect.sync(() => dht.leave()),
    ready: Effect.sync(joining.ready),
    standing: Effect.sync(joining.standing),
    peers: Effect.map(
      Clock.currentTimeMillis,
      (now) =>
        [...dht.members.values()].flatMap((member) =>
          Option.toArray(Option.map(toPeer(member), (peer) => factsOf(member, peer, now)))
        )
    ),
    self: Effect.sync(() => ({
      id: node.host.peerId.toString(),
      addresses: ipsOf(node.announced(), { loopback: node.accepted.loopback }),
      servicePort: options.servicePort ?? 0
    }))
  })
})

const heardFrom = ({ dht }: DhtNode.DhtNode): ReadonlyArray<Member> =>
  [...dht.members.values()].filter(({ lastHeard }) => lastHeard > 0)

const networkView = (node: DhtNode.DhtNode, listen: Libp2pOptions): Joining.NetworkView => {
  const { dht, host, proofs } = node
  // An address with this node's own id may have been its own once, or may be its clone's.
  const ownId = `/p2p/${host.peerId.toString()}`
  const dialled = (address: Multiaddr) => address.toString().endsWith(ownId) ? PeerAddress.withoutId(address) : address
  return {
    peers: () => heardFrom(node).length,
    isMember: (id) => dht.members.get(id) !== undefined,
    isSelf: Libp2pHost.isOwnAddress(host, listen),
    refusal: proofs.refusal,
    dial: (address) =>
      Effect.tryPromise({
        try: (signal) => host.dial(dialled(address), { signal }),
        catch: (cause) => new DialFailed({ reason: String(cause) })
      }).pipe(
        Effect.flatMap((connection) => Effect.promise(() => proofs.admission.settled(connection))),
        Effect.flatMap((outcome) =>
          outcome._tag === "Refused" ? Effect.fail(new DialFailed({ reason: outcome.reason })) : Effect.void
        )
      )
  }
}

const peerNews = (node: DhtNode.DhtNode) =>
  PeerNews.run({
    fingerprint: () => node.dht.members.fingerprint,
    peers: () =>
      heardFrom(node).map(({ addresses: [first], id }) => ({
        id,
        address: first === undefined ? "" : Option.getOrElse(ipOfBytes(first), () => "")
      }))
  })

const whenReady = <A, R>(
  joining: Joining.Joining,
  effect: Effect.Effect<A, never, R>
): Effect.Effect<A, RouterNotReady, R> =>
  Effect.suspend(() => joining.ready() ? effect : Effect.fail(new RouterNotReady({ reason: joining.reason() })))

const makeLookup = Effect.fnUntraced(function*(
  { dht }: DhtNode.DhtNode,
  joining: Joining.Joining,
  toPeer: (provider: Provider) => Option.Option<Peer>
) {
  const clock = yield* Clock.Clock
  const context = yield* Effect.context()
  const search = (key: ContentKey.ContentKey, count: number, queue: Queue.Enqueue<Peer, RouterNotReady | Cause.Done>) =>
    Effect.suspend(() => {
      const started = clock.monotonicTimeNanosUnsafe()
      const resolved = () =>
        RouterMetrics.resolvedUnsafe(Number(clock.monotonicTimeNanosUnsafe() - started) / 1e9, context)
      let found = 0
      const searching = dht.lookup(ContentKey.toDhtKey(key), (provider) => {
        const peer = toPeer(provider)
        if (Option.isSome(peer)) {
          Queue.offerUnsafe(queue, peer.value)
          if (found++ === 0) resolved()
        }
        return found < count
      })
      // So far, only this node's own store was searched.
      return Effect.annotateCurrentSpan("spegel.peers.in_own_store", found).pipe(
        Effect.andThen(Effect.promise(() => searching)),
        Effect.andThen(Effect.suspend(() => {
          if (found === 0) resolved()
          return Queue.end(queue)
        }))
      )
    })
  return (key: ContentKey.ContentKey, { count }: { readonly count: number }) =>
    Stream.callback<Peer, RouterNotReady>((queue) => whenReady(joining, search(key, count, queue)))
})

const ipsOf = (
  addresses: ReadonlyArray<Uint8Array>,
  usable: PeerAddress.UsableOptions
): ReadonlyArray<string> => {
  const ips = addresses.flatMap((address) =>
    Option.toArray(Option.filter(ipOfBytes(address), (ip) => PeerAddress.isUsable(ip, usable)))
  )
  return [...new Set(ips)]
}

/** A provider with at least one usable address. One that has not sent its port is taken to use this node's. */
const peerOf = (
  accepted: PeerAddress.UsableOptions,
  ownServicePort: number | undefined,
  { addresses, id, proof, servicePort = ownServicePort ?? 0 }: Provider
): Option.Option<Peer> => {
  const ips = ipsOf(addresses, accepted)
  if (ips.length === 0) return Option.none()
  const proved = proof === undefined
    ? {}
    : { proved: true, ...(proof.zone === undefined ? {} : { zone: proof.zone }) }
  return Option.some({ id, addresses: ips, servicePort, ...proved })
}

/** `now` is the wall clock, in milliseconds since the epoch. */
const factsOf = ({ agent, lastHeard, roundTrip }: Member, peer: Peer, now: number): PeerFacts => ({
  ...peer,
  ...(roundTrip === undefined ? {} : { roundTripMillis: roundTrip }),
  ...(lastHeard === 0 ? {} : { lastHeardMillis: now - (performance.now() - lastHeard) }),
  ...(agent === undefined ? {} : { agent })
})
