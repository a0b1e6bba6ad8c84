/**
 * `Router` over libp2p: TCP, noise or TLS, yamux, and a Kademlia DHT under `/spegel/kad/1.0.0`, so that Go Spegel's
 * nodes and ours are one network.
 */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { identify } from "@libp2p/identify"
import type { Connection, ConnectionGater, IdentifyResult, Libp2p as Host, PeerId } from "@libp2p/interface"
import { ping } from "@libp2p/ping"
import { type Multiaddr, multiaddr } from "@multiformats/multiaddr"
import * as Background from "@spegel-ts/background/Background"
import { Cause, Clock, Data, Duration, Effect, Layer, Option, Queue, Random, Schedule, Stream } from "effect"
import { createLibp2p } from "libp2p"
import { base58btc } from "multiformats/bases/base58"
import { createHash } from "node:crypto"
import type { BlockList } from "node:net"
import { networkInterfaces, uptime } from "node:os"
import { Bootstrap } from "./Bootstrap.ts"
import type { ContentKey } from "./ContentKey.ts"
import * as Identity from "./Identity.ts"
import { close, economise, Gate } from "./kademlia/ConnectionRules.ts"
import { positionOf } from "./kademlia/Distance.ts"
import { Kademlia, type Provider } from "./kademlia/Kademlia.ts"
import * as Libp2pTransport from "./kademlia/Libp2pTransport.ts"
import { copied } from "./kademlia/Members.ts"
import { empty, type Environment, message, NoteType, textOf } from "./kademlia/Protocol.ts"
import { tls } from "./OnDemandTls.ts"
import type { Peer, PeerFacts } from "./Peer.ts"
import * as PeerAddress from "./PeerAddress.ts"
import { Router, RouterNotReady } from "./Router.ts"
import { publish, resolved } from "./RouterMetrics.ts"
import { silentLogger } from "./SilentLogger.ts"
import { tcp } from "./WholeWrites.ts"

/** The address cannot be listened on. */
export class RouterListenFailed extends Data.TaggedError("RouterListenFailed")<{
  readonly address: string
  readonly reason: string
}> {
  override get message() {
    return `the router cannot listen on ${this.address}: ${this.reason}`
  }
}

export interface Libp2pOptions {
  /** IP to listen on; none means all of them. */
  readonly host: Option.Option<string>
  readonly port: number
  /** Directory of the identity; none keeps it in memory. */
  readonly dataDir: Option.Option<string>
  /** Port of this node's registry; its peers are taken to use the same. */
  readonly registryPort: number
  /** How long a record lives that a peer of our kind sent. Default 10 minutes. */
  readonly recordTtl?: Duration.Duration
  /** How often own records are handed out again. Default 9 minutes. */
  readonly refreshInterval?: Duration.Duration
  /** Where the addresses of all peers lie, from `PeerAddress.parseCidrs`; none means anywhere. */
  readonly peerCidrs?: BlockList | undefined
}

/** A bootstrap address did not lead to a peer. */
class DialFailed extends Data.TaggedError("DialFailed")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

const dialTimeout = Duration.seconds(5)
const introduction = Duration.millis(500)
const rebootstrapInterval = Duration.minutes(30)
const changeSpread = Duration.seconds(10)
const economyInterval = Duration.seconds(10)

/** The DHT key: the multihash (sha2-256) of the key's text, as in Go Spegel. */
export const dhtKey = (key: ContentKey): Uint8Array =>
  Buffer.concat([Uint8Array.of(0x12, 0x20), createHash("sha256").update(key).digest()])

const listenAddresses = (host: Option.Option<string>): ReadonlyArray<string> => {
  if (Option.isSome(host)) return [host.value]
  const hasIpv6 = Object.values(networkInterfaces()).flat().some((address) => address?.family === "IPv6")
  return hasIpv6 ? ["0.0.0.0", "::"] : ["0.0.0.0"]
}

/** Streams of one connection: ours needs two each way. */
const maxStreams = 32
/** Connections that are held; in a larger network others are made when they are needed. */
const heldConnections = 128

/** A connection over which nothing was said for so long, in milliseconds, is closed, and its peer looked after. */
const inactivity = 15 * 60_000

const makeHost = Effect.fnUntraced(function*(options: Libp2pOptions, loopback: boolean, gater: ConnectionGater) {
  const privateKey = yield* Identity.load(options.dataDir)
  const addresses = listenAddresses(options.host).map((ip) => PeerAddress.ofSocket(ip, options.port))
  const listenFailed = (cause: unknown) => {
    const text = String(cause instanceof AggregateError ? [cause, ...cause.errors].map(String).join(" ") : cause)
    return new RouterListenFailed({
      address: `${Option.getOrElse(options.host, () => "")}:${options.port}`,
      reason: /EADDRINUSE/.test(text) || /already in use/i.test(text)
        ? "the port is in use; choose another with --router-addr"
        : text
    })
  }
  return yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: () =>
        createLibp2p({
          privateKey,
          nodeInfo: { userAgent: "spegel-ts" },
          logger: silentLogger,
          addresses: {
            listen: addresses.map(String),
            announceFilter: (found) => found.filter((address) => PeerAddress.isUsableAddress(address, { loopback }))
          },
          transports: [
            tcp({ inboundSocketInactivityTimeout: inactivity, outboundSocketInactivityTimeout: inactivity })
          ],
          connectionEncrypters: [noise(), tls()],
          streamMuxers: [
            // The DHT pings whom it looks after.
            yamux({ maxInboundStreams: maxStreams, maxOutboundStreams: maxStreams, enableKeepAlive: false })
          ],
          connectionGater: gater,
          connectionMonitor: { enabled: false },
          connectionManager: {
            maxConnections: 2 * heldConnections,
            inboundConnectionThreshold: 200,
            inboundUpgradeTimeout: 3000,
            maxIncomingPendingConnections: 128
          },
          services: {
            identify: identify(),
            ping: ping()
          }
        }),
      catch: listenFailed
    }),
    // Stopping waits for streams, which a peer can hold open.
    (host) => Effect.promise(() => Promise.resolve(host.stop())).pipe(Effect.timeoutOption("2 seconds"))
  )
})

/**
 * Dials what the bootstrap sources give: until there is a peer with growing pauses, then whenever nobody is left, every half
 * hour, and when the sources have changed. `joined` is called after each round.
 */
const bootstrapForever = Effect.fnUntraced(function*(host: Host, bootstrap: typeof Bootstrap.Service, options: {
  readonly isMember: (id: string) => boolean
  readonly joined: () => void
}) {
  const changed = yield* Queue.sliding<void>(1)
  // Sources that never change have no news: that is an end, and no failure.
  yield* Background.untilDone(
    "bootstrap changes",
    Stream.runForEach(bootstrap.changes, () => Queue.offer(changed, undefined))
  )
  const { failed, works } = yield* Background.health("bootstrap sources", { distinctReasons: 16 })
  const alone = () => host.getPeers().length === 0

  const isSelf = (address: Multiaddr) => {
    const own = host.getMultiaddrs().map((own) => PeerAddress.withoutId(own).toString())
    return address.toString().includes(host.peerId.toString()) || own.includes(address.toString())
  }
  /** Whoever is known is reached when it is needed: all nodes of a large cluster would dial a new leader at once. */
  const isKnown = (address: Multiaddr) => {
    const id = address.getComponents().findLast(({ name }) => name === "p2p")?.value
    return id !== undefined && !alone() && options.isMember(id)
  }
  const dial = (text: string) =>
    Effect.try(() => multiaddr(text)).pipe(
      Effect.flatMap((address) =>
        isSelf(address) || isKnown(address) ? Effect.void : Effect.tryPromise({
          try: (signal) => host.dial(address, { signal }),
          catch: (cause) => new DialFailed({ reason: String(cause) })
        })
      ),
      Effect.timeout(dialTimeout),
      Effect.catch((error) => Effect.logDebug(`bootstrap: ${text} did not answer: ${error.message}`))
    )
  const round = bootstrap.addresses.pipe(
    Effect.tap(() => works),
    Effect.flatMap(Effect.forEach(dial, { concurrency: 8, discard: true })),
    Effect.catch((error) => failed(Cause.fail(error))),
    // The first peers tell of the others: a lookup before that would ask the wrong ones.
    Effect.andThen(Effect.suspend(() => alone() ? Effect.void : Effect.sleep(introduction))),
    Effect.andThen(Effect.sync(options.joined))
  )
  const untilAlone = Effect.sync(alone).pipe(
    Effect.repeat({ schedule: Schedule.spaced("5 seconds"), until: (alone) => alone }),
    Effect.asVoid
  )
  for (let failures = 0;;) {
    yield* round
    if (alone()) {
      const pause = Math.min(500 * 2 ** failures++, 30_000) * (yield* Random.nextBetween(0.8, 1.2))
      yield* Effect.timeoutOption(Queue.take(changed), pause)
    } else {
      failures = 0
      const period = Duration.toMillis(rebootstrapInterval) * (yield* Random.nextBetween(0.8, 1.2))
      yield* Effect.timeoutOption(Effect.raceFirst(untilAlone, Queue.take(changed)), period)
      // A change is news to all nodes at the same moment.
      const spread = Duration.toMillis(changeSpread) * (yield* Random.next)
      yield* Effect.timeoutOption(untilAlone, spread)
    }
  }
})

/** A member of the cluster's network, listening while its scope is open. */
export const layer = (
  options: Libp2pOptions
): Layer.Layer<Router, RouterListenFailed | Identity.IdentityUnusable, Bootstrap> =>
  Layer.effect(
    Router,
    Effect.gen(function*() {
      const bootstrap = yield* Bootstrap
      const loopback = Option.exists(options.host, PeerAddress.isLoopback)
      const believed: PeerAddress.UsableOptions = { loopback, within: options.peerCidrs }
      const gate = new Gate()
      const guard = yield* Background.guard("router")
      const host = yield* makeHost(options, loopback, gate.gater)
      const idBytes = host.peerId.toMultihash().bytes
      const announced = () => host.getMultiaddrs().map((address) => PeerAddress.withoutId(address).bytes)
      const transport = Libp2pTransport.make(host, () => ({ id: idBytes, addresses: announced() }))
      const kademlia = new Kademlia({
        self: { id: host.peerId.toString(), idBytes },
        addresses: announced,
        registryPort: options.registryPort,
        environment: environmentOf(believed, guard),
        transport,
        ttlMillis: Duration.toMillis(options.recordTtl ?? defaultRecordTtl),
        refreshMillis: Duration.toMillis(options.refreshInterval ?? defaultRefreshInterval)
      })
      yield* Effect.acquireRelease(
        Effect.promise(async () => {
          await transport.serve({
            answer: (from, message) => kademlia.answer(from, message),
            note: (from, message) => kademlia.note(from, message),
            onViolation: (connection) => gate.violated(connection)
          })
          kademlia.start()
        }),
        () => Effect.andThen(Effect.sync(() => kademlia.stop()), Effect.sleep(wordTime))
      )
      yield* followHost(host, kademlia, believed, guard)
      yield* publish(() => ({ kademlia: kademlia.counts, transport: transport.counts() }))
      const known = new WeakSet<Connection>()
      const economy = Effect.repeat(
        Effect.sync(() => {
          const neighbours = new Set(kademlia.neighbours().map(({ id }) => id))
          return economise(host, {
            bound: heldConnections,
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

      let joined = false
      const bootstrapping = bootstrapForever(host, bootstrap, {
        isMember: (id) => kademlia.members.get(id) !== undefined,
        joined: () => {
          joined = true
        }
      })
      yield* Background.keepRunning("bootstrap", Effect.scoped(bootstrapping))
      const whenReady = <A>(effect: Effect.Effect<A>): Effect.Effect<A, RouterNotReady> =>
        Effect.suspend(() =>
          joined ? effect : Effect.fail(new RouterNotReady({ reason: "no bootstrap peer was asked yet" }))
        )

      const ipsOf = (
        addresses: ReadonlyArray<Uint8Array>,
        usable: PeerAddress.UsableOptions
      ): ReadonlyArray<string> => {
        const ips = addresses.flatMap((address) =>
          Option.toArray(Option.filter(ipOfBytes(address), (ip) => PeerAddress.isUsable(ip, usable)))
        )
        return [...new Set(ips)]
      }
      const toPeer = ({ addresses, id, registryPort }: Provider): Option.Option<Peer> => {
        const ips = ipsOf(addresses, believed)
        return ips.length === 0
          ? Option.none()
          : Option.some({ id, addresses: ips, registryPort: registryPort ?? options.registryPort })
      }

      const lookup = (key: ContentKey, count: number) =>
        Stream.callback<Peer>((queue) =>
          Effect.suspend(() => {
            let found = 0
            const searching = kademlia.lookup(dhtKey(key), (provider) => {
              const peer = toPeer(provider)
              if (Option.isSome(peer)) {
                Queue.offerUnsafe(queue, peer.value)
                found++
              }
              return found < count
            })
            // Those that were there before anybody could be asked.
            return Effect.annotateCurrentSpan("spegel.peers.in_own_store", found).pipe(
              Effect.andThen(Effect.promise(() => searching)),
              Effect.andThen(Queue.end(queue))
            )
          })
        )

      return Router.of({
        advertise: Effect.fn("Libp2p.advertise")((keys) =>
          Effect.andThen(
            Effect.promise(() => kademlia.advertise(keys.map(dhtKey))),
            whenReady(Effect.void)
          )
        ),
        withdraw: Effect.fn("Libp2p.withdraw")((keys) => Effect.sync(() => kademlia.withdraw(keys.map(dhtKey)))),
        lookup: (key, { count }) => Stream.unwrap(whenReady(Effect.sync(() => resolved(lookup(key, count))))),
        ready: Effect.sync(() => joined),
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
          registryPort: options.registryPort
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
const followHost = (host: Host, kademlia: Kademlia, believed: PeerAddress.UsableOptions, guard: Guard) => {
  const identified = ({ detail }: CustomEvent<IdentifyResult>) => {
    if (!detail.protocols.includes(Libp2pTransport.kademliaProtocol)) return
    const remote = PeerAddress.ipOf(detail.connection.remoteAddr)
    const claimed = detail.listenAddrs.filter((address) => PeerAddress.isUsableAddress(address, believed))
    // Where it comes from is a fact, where it says that it is is a claim.
    const isRemote = (address: Multiaddr) =>
      Option.exists(PeerAddress.ipOf(address), (ip) => Option.isSome(remote) && ip === remote.value)
    const idBytes = detail.peerId.toMultihash().bytes
    kademlia.connected({
      id: detail.peerId.toString(),
      idBytes,
      position: positionOf(idBytes),
      addresses: [...claimed.filter(isRemote), ...claimed.filter((address) => !isRemote(address))].map(
        (address) => PeerAddress.withoutId(address).bytes
      ),
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
