/**
 * `Router` over libp2p: TCP, noise or TLS, yamux, and a Kademlia DHT under `/spegel/kad/1.0.0`, so that Go Spegel's
 * nodes and ours are one network.
 */
import type { Connection, IdentifyResult, Libp2p as Host, PeerId } from "@libp2p/interface"
import type { Multiaddr } from "@multiformats/multiaddr"
import * as Background from "@spegel-ts/background/Background"
import { Clock, Duration, Effect, Layer, Option, Queue, Schedule, Stream } from "effect"
import { base58btc } from "multiformats/bases/base58"
import { hash } from "node:crypto"
import type { BlockList } from "node:net"
import { uptime } from "node:os"
import { Bootstrap } from "./Bootstrap.ts"
import type { ContentKey } from "./ContentKey.ts"
import { Identity, type Owner } from "./Identity.ts"
import { Kademlia, type Provider } from "./internal/dht/Dht.ts"
import { positionOf } from "./internal/dht/Distance.ts"
import { copied } from "./internal/dht/members/MemberTable.ts"
import * as Libp2pTransport from "./internal/dht/rpc/Libp2pTransport.ts"
import { empty, type Environment, message, NoteType, textOf } from "./internal/dht/rpc/Protocol.ts"
import { close, economise, Gate } from "./internal/host/ConnectionRules.ts"
import type { IdentityConflicts } from "./internal/host/IdentityConflicts.ts"
import * as Joining from "./internal/host/Joining.ts"
import * as Libp2pHost from "./internal/host/Libp2pHost.ts"
import { publish, resolvedUnsafe } from "./internal/host/RouterMetrics.ts"
import type { Peer, PeerFacts } from "./Peer.ts"
import * as PeerAddress from "./PeerAddress.ts"
import * as PeerNews from "./PeerNews.ts"
import { Router, RouterNotReady } from "./Router.ts"

export interface Libp2pOptions {
  /** IP to listen on; none means all of them. */
  readonly host: Option.Option<string>
  readonly port: number
  /** Port of this node's registry; its peers are taken to use the same. */
  readonly servicePort: number
  /** How long a record lives that a peer of our kind sent. Default 10 minutes. */
  readonly recordTtl?: Duration.Duration
  /** How often own records are handed out again. Default 9 minutes. */
  readonly refreshInterval?: Duration.Duration
  /** Where the addresses of all peers lie, from `PeerAddress.parseCidrs`; none means anywhere. */
  readonly peerCidrs?: BlockList | undefined
  /** How long to look for a peer before this node is ready without one. Default 15 seconds. */
  readonly joinGrace?: Duration.Duration
}

const economyInterval = Duration.seconds(10)

/** The DHT key: the multihash (sha2-256) of the key's text, as in Go Spegel. */
export const dhtKey = (key: ContentKey): Uint8Array =>
  Buffer.concat([Uint8Array.of(0x12, 0x20), hash("sha256", key, "buffer")])

/**
 * A member of the cluster's network, listening while its scope is open. Its key pair is kept in `dataDir`; without one it is
 * a new one, in memory.
 */
export const layer = (
  { dataDir, owner = {}, ...options }: Libp2pOptions & {
    readonly dataDir: Option.Option<string>
    /** The node that the key pair belongs to, so that a clone of its directory makes its own. Default: not noted. */
    readonly owner?: Owner
  }
): Layer.Layer<Router, Libp2pHost.RouterListenFailed, Bootstrap> =>
  Layer.provide(
    layerWithoutIdentity(options),
    Option.match(dataDir, {
      onNone: () => Identity.layerMemory,
      onSome: (dataDir) => Identity.layer({ dataDir, owner })
    })
  )

/** The same with the application's `Identity`, for one whose bootstrap source has to know the node's own id. */
export const layerWithoutIdentity = (
  options: Libp2pOptions
): Layer.Layer<Router, Libp2pHost.RouterListenFailed, Bootstrap | Identity> =>
  Layer.effect(
    Router,
    Effect.gen(function*() {
      const bootstrap = yield* Bootstrap
      const loopback = Option.exists(options.host, PeerAddress.isLoopback)
      const believed: PeerAddress.UsableOptions = { loopback, within: options.peerCidrs }
      const gate = new Gate()
      const guard = yield* Background.guard("router")
      const { conflicts, host } = yield* Libp2pHost.make({ ...options, loopback, gater: gate.gater })
      const idBytes = host.peerId.toMultihash().bytes
      const announced = remembered(() => host.getMultiaddrs().map((address) => PeerAddress.withoutId(address).bytes))
      const transport = Libp2pTransport.make(host, () => ({ id: idBytes, addresses: announced() }))
      const kademlia = new Kademlia({
        self: { id: host.peerId.toString(), idBytes },
        addresses: announced,
        servicePort: options.servicePort,
        environment: environmentOf(believed, guard),
        transport,
        ttlMillis: Duration.toMillis(options.recordTtl ?? defaultRecordTtl),
        refreshMillis: Duration.toMillis(options.refreshInterval ?? defaultRefreshInterval)
      })
      yield* Effect.acquireRelease(
        Effect.promise(async () => {
          await transport.serve({
            answer: (from, address, message) => kademlia.answer(from, address, message),
            note: (from, message) => kademlia.note(from, message),
            onViolation: (connection) => gate.violated(connection)
          })
          kademlia.start()
        }),
        () => Effect.andThen(Effect.sync(() => kademlia.stop()), Effect.sleep(wordTime))
      )
      yield* followHost(host, kademlia, believed, conflicts, guard)
      yield* publish(() => ({ kademlia: kademlia.counts, transport: transport.counts() }))
      const known = new WeakSet<Connection>()
      const economy = Effect.repeat(
        Effect.sync(() => {
          const neighbours = new Set(kademlia.neighbours().map(({ id }) => id))
          return economise(host, {
            bound: Libp2pHost.heldConnections,
            known,
            isNeighbour: (id) => neighbours.has(id),
            lastUsed: transport.lastUsed,
            rest: (id) => {
              const member = kademlia.members.get(id)
              if (member?.ours === true) transport.tell(member, [message(NoteType.rest, empty)])
            }
          })
        }).pipe(Effect.flatMap((resting) => Effect.delay(Effect.sync(() => close(resting)), wordTime))),
        Schedule.spaced(economyInterval)
      )
      yield* Background.keepRunning("connection economy", economy)

      // An address with this node's own id is where it was once, or where its clone is.
      const dialled = (address: Multiaddr) =>
        address.toString().endsWith(`/p2p/${host.peerId.toString()}`) ? PeerAddress.withoutId(address) : address
      const heard = () => [...kademlia.members.values()].filter(({ lastHeard }) => lastHeard > 0)
      const joining = yield* Joining.make({
        bootstrap,
        grace: options.joinGrace,
        surroundings: {
          peers: () => heard().length,
          isMember: (id) => kademlia.members.get(id) !== undefined,
          isSelf: Libp2pHost.isOwnAddress(host, options),
          dial: (address) =>
            Effect.tryPromise({
              try: (signal) => host.dial(dialled(address), { signal }),
              catch: (cause) => new Joining.DialFailed({ reason: String(cause) })
            })
        }
      })
      yield* Background.keepRunning(
        "news of peers",
        PeerNews.run({
          fingerprint: () => kademlia.members.fingerprint,
          peers: () =>
            heard().map(({ addresses: [first], id }) => ({
              id,
              address: first === undefined ? "" : Option.getOrElse(ipOfBytes(first), () => "")
            }))
        })
      )
      const whenReady = <A, R>(effect: Effect.Effect<A, never, R>): Effect.Effect<A, RouterNotReady, R> =>
        Effect.suspend(() => {
          const standing = joining.standing()
          return standing._tag === "Joining" ? Effect.fail(new RouterNotReady({ reason: standing.reason })) : effect
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
      const toPeer = ({ addresses, id, servicePort }: Provider): Option.Option<Peer> => {
        const ips = ipsOf(addresses, believed)
        return ips.length === 0
          ? Option.none()
          : Option.some({ id, addresses: ips, servicePort: servicePort ?? options.servicePort })
      }

      const clock = yield* Clock.Clock
      const context = yield* Effect.context()
      const lookup = (key: ContentKey, count: number) =>
        Stream.callback<Peer, RouterNotReady>((queue) =>
          whenReady(Effect.suspend(() => {
            const started = clock.monotonicTimeNanosUnsafe()
            const resolved = () => resolvedUnsafe(Number(clock.monotonicTimeNanosUnsafe() - started) / 1e9, context)
            let found = 0
            const searching = kademlia.lookup(dhtKey(key), (provider) => {
              const peer = toPeer(provider)
              if (Option.isSome(peer)) {
                Queue.offerUnsafe(queue, peer.value)
                if (found++ === 0) resolved()
              }
              return found < count
            })
            // Those that were there before anybody could be asked.
            return Effect.annotateCurrentSpan("spegel.peers.in_own_store", found).pipe(
              Effect.andThen(Effect.promise(() => searching)),
              Effect.andThen(Effect.suspend(() => {
                if (found === 0) resolved()
                return Queue.end(queue)
              }))
            )
          }))
        )

      return Router.of({
        advertise: Effect.fn("Libp2p.advertise")((keys) =>
          Effect.andThen(
            Effect.promise(() => kademlia.advertise(keys.map(dhtKey))),
            whenReady(Effect.void)
          )
        ),
        withdraw: Effect.fn("Libp2p.withdraw")((keys) => Effect.sync(() => kademlia.withdraw(keys.map(dhtKey)))),
        lookup: (key, { count }) => lookup(key, count),
        leave: Effect.sync(() => kademlia.leave()),
        ready: Effect.sync(joining.ready),
        standing: Effect.sync(joining.standing),
        peers: Effect.map(Clock.currentTimeMillis, (wall) =>
          [...kademlia.members.values()].flatMap((member) =>
            Option.toArray(Option.map(toPeer(member), (peer): PeerFacts => ({
              ...peer,
              ...(member.roundTrip === undefined ? {} : { roundTripMillis: member.roundTrip }),
              ...(member.lastHeard === 0 ? {} : { lastHeardMillis: wall - (performance.now() - member.lastHeard) }),
              ...(member.agent === undefined ? {} : { agent: member.agent })
            })))
          )),
        self: Effect.sync(() => ({
          id: host.peerId.toString(),
          addresses: ipsOf(announced(), { loopback }),
          servicePort: options.servicePort
        }))
      })
    })
  )

/** Time that a last word has to leave this host before what carries it is closed. */
const wordTime = Duration.millis(100)
const defaultRecordTtl = Duration.minutes(10)
const defaultRefreshInterval = Duration.minutes(9)

const idTexts = new Map<string, string>()
const maxIdTexts = 10_000

/** So long this node's addresses are taken to be the same: to know them, libp2p looks at all interfaces of the machine. */
const sameAddressesMillis = 5000

/** Remembers what was read last, unless there was nothing. */
const remembered = <A>(read: () => ReadonlyArray<A>): () => ReadonlyArray<A> => {
  let known: ReadonlyArray<A> = []
  let readAt = 0
  return () => {
    const now = performance.now()
    if (known.length > 0 && now - readAt < sameAddressesMillis) return known
    known = read()
    readAt = now
    return known
  }
}

const ipOfBytes = (address: Uint8Array): Option.Option<string> =>
  Option.flatMap(PeerAddress.fromBytes(address), PeerAddress.ipOf)

/** Runs what a timer or the host calls, and keeps what it throws from ending the process. */
type Guard = (run: () => void) => void

const environmentOf = (believed: PeerAddress.UsableOptions, guard: Guard): Environment => ({
  now: () => performance.now(),
  uptime: () => uptime() * 1000,
  usable: (addresses) =>
    addresses.filter((address) => Option.exists(ipOfBytes(address), (ip) => PeerAddress.isUsable(ip, believed))),
  keep: copied,
  siteOf: ([first]) => first === undefined ? "" : Option.getOrElse(ipOfBytes(first), () => ""),
  random: Math.random,
  after: (millis, run) => {
    const timer = setTimeout(() => guard(run), millis)
    return () => clearTimeout(timer)
  },
  // Base 58 is slow, and the same few ids come again and again.
  idText: (bytes) => {
    const key = textOf(bytes)
    const known = idTexts.get(key)
    if (known !== undefined) return known
    if (idTexts.size >= maxIdTexts) idTexts.clear()
    const text = base58btc.baseEncode(bytes)
    idTexts.set(key, text)
    return text
  }
})

/** Tells the core who connects, as what, and who goes. */
const followHost = (
  host: Host,
  kademlia: Kademlia,
  believed: PeerAddress.UsableOptions,
  conflicts: IdentityConflicts,
  guard: Guard
) => {
  const identified = ({ detail }: CustomEvent<IdentifyResult>) => {
    if (!detail.protocols.includes(Libp2pTransport.kademliaProtocol)) return
    const remote = PeerAddress.ipOf(detail.connection.remoteAddr)
    const claimed = detail.listenAddrs.filter((address) => PeerAddress.isUsableAddress(address, believed))
    // Where it comes from is a fact, where it says that it is is a claim.
    const isRemote = (address: Multiaddr) =>
      Option.exists(PeerAddress.ipOf(address), (ip) => Option.isSome(remote) && ip === remote.value)
    const addresses = [...claimed.filter(isRemote), ...claimed.filter((address) => !isRemote(address))].map(
      PeerAddress.withoutId
    )
    const id = detail.peerId.toString()
    const before = kademlia.members.get(id)?.addresses ?? []
    conflicts.introduced(
      id,
      before.flatMap((address) => Option.toArray(PeerAddress.fromBytes(address))),
      addresses
    )
    const idBytes = detail.peerId.toMultihash().bytes
    kademlia.connected({
      id,
      idBytes,
      position: positionOf(idBytes),
      addresses: addresses.map(({ bytes }) => bytes),
      agent: detail.agentVersion,
      ours: detail.protocols.includes(Libp2pTransport.notesProtocol)
    })
  }
  const onIdentify = (event: CustomEvent<IdentifyResult>) => guard(() => identified(event))
  const onDisconnect = ({ detail }: CustomEvent<PeerId>) => guard(() => kademlia.disconnected(detail.toString()))
  return Effect.acquireRelease(
    Effect.sync(() => {
      host.addEventListener("peer:identify", onIdentify)
      host.addEventListener("peer:disconnect", onDisconnect)
    }),
    () =>
      Effect.sync(() => {
        host.removeEventListener("peer:identify", onIdentify)
        host.removeEventListener("peer:disconnect", onDisconnect)
      })
  )
}
