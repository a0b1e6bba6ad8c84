/** The DHT on a libp2p host: joins the core, its transport and the host, and starts and stops them together. */
import type { Connection, Libp2p as Host } from "@libp2p/interface"
import * as Background from "@spegel-ts/background/Background"
import { PeerAuth } from "@spegel-ts/cluster-key/PeerAuth"
import { Duration, Effect, Option } from "effect"
import type { Libp2pOptions } from "../../Libp2p.ts"
import * as PeerAddress from "../../PeerAddress.ts"
import { Dht } from "../dht/Dht.ts"
import { Libp2pTransport } from "../dht/rpc/Libp2pTransport.ts"
import { GossipType } from "../dht/rpc/Protocol.ts"
import type { Proof } from "../proof/Exchange.ts"
import * as Statement from "../proof/Statement.ts"
import { ConnectionGater } from "./ConnectionGater.ts"
import { ConnectionTrimmer } from "./ConnectionTrimmer.ts"
import * as DhtEnvironment from "./DhtEnvironment.ts"
import * as HostEvents from "./HostEvents.ts"
import * as Libp2pHost from "./Libp2pHost.ts"
import * as MembershipProofs from "./MembershipProofs.ts"
import * as RouterMetrics from "./RouterMetrics.ts"

export interface DhtNode {
  readonly host: Host
  readonly dht: Dht
  /** Multiaddrs in binary that this node announces now, without its id. */
  readonly announced: () => ReadonlyArray<Uint8Array>
  /** The addresses that a peer may claim. */
  readonly accepted: PeerAddress.UsableOptions
  readonly proofs: MembershipProofs.MembershipProofs
}

const defaultRecordTtl = Duration.minutes(10)
const defaultRefreshInterval = Duration.minutes(9)
/** How long a last message may take to leave this host before its connection is closed. */
const partingTime = Duration.millis(100)
/** How long announced addresses are cached: libp2p reads all interfaces of the machine to know them. */
const announcedCacheMillis = 5000

/** A node that listens, serves and maintains its connections while the scope is open. */
export const make = Effect.fnUntraced(function*(options: Libp2pOptions) {
  const loopback = Option.exists(options.host, PeerAddress.isLoopback)
  const accepted: PeerAddress.UsableOptions = { loopback, within: options.peerCidrs }
  const gater = new ConnectionGater()
  const guard = yield* Background.guard("router")
  const auth = yield* PeerAuth
  const identify = auth.mode !== "require"
  const { conflicts, host, listen } = yield* Libp2pHost.make({ ...options, loopback, gater, identify })
  const idBytes = host.peerId.toMultihash().bytes
  const announced = cached(() => host.getMultiaddrs().map((address) => PeerAddress.withoutId(address).bytes))
  const zone = yield* checkedZone(options.zone)
  const log = Effect.runForkWith(yield* Effect.context())
  const proofs = yield* MembershipProofs.make({
    auth,
    host,
    guard,
    statement: () => ({
      addresses: announced(),
      servicePort: options.servicePort ?? 0,
      zone,
      agent: Libp2pHost.agent,
      capabilities: Statement.Capability.gossip
    }),
    onProved: (connection, proof) => {
      if (!HostEvents.proved({ dht, conflicts, accepted }, connection, proof)) log(elsewhere(connection, proof))
    }
  })
  const transport = new Libp2pTransport(host, () => ({ id: idBytes, addresses: announced() }), proofs.admission)
  const dht: Dht = new Dht({
    self: { id: host.peerId.toString(), idBytes },
    addresses: announced,
    servicePort: options.servicePort ?? 0,
    zone,
    environment: DhtEnvironment.make(accepted, guard),
    transport,
    ttlMillis: Duration.toMillis(options.recordTtl ?? defaultRecordTtl),
    refreshMillis: Duration.toMillis(options.refreshInterval ?? defaultRefreshInterval)
  })
  yield* serve(dht, transport, gater, proofs)
  yield* HostEvents.follow({ host, dht, conflicts, accepted, proofs, guard })
  yield* listen
  yield* MembershipProofs.followKeys(auth, proofs, dht)
  yield* RouterMetrics.initialise
  yield* RouterMetrics.publish(() => ({ dht: dht.counts, transport: transport.counts, proofs: proofs.connections }))
  yield* Background.keepRunning("connection economy", trimmerOf(host, dht, transport).run(partingTime))
  return { host, dht, announced, accepted, proofs } satisfies DhtNode
})

/** A zone that can be stated to peers. Another one is worth a warning, but not a node that does not start. */
const checkedZone = (zone: string | undefined): Effect.Effect<string | undefined> =>
  zone === undefined || Statement.isZone(zone)
    ? Effect.succeed(zone)
    : Effect.as(Effect.logWarning("the zone is not told to peers: it is not 1 to 128 ASCII characters"), undefined)

const elsewhere = (connection: Connection, { statement }: Proof): Effect.Effect<void> =>
  Effect.logDebug("a member is not connected from one of its addresses, as behind address translation").pipe(
    Effect.annotateLogs({
      id: connection.remotePeer.toString(),
      connection: connection.remoteAddr.toString(),
      addresses: statement.addresses.flatMap((bytes) => Option.toArray(PeerAddress.fromBytes(bytes))).join(", ")
    })
  )

const serve = (
  dht: Dht,
  transport: Libp2pTransport,
  gater: ConnectionGater,
  { connections }: MembershipProofs.MembershipProofs
) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      await transport.serve({
        answer: (from, address, message) => dht.answer(from, address, message),
        gossip: (from, message) => {
          if (message.type === GossipType.goodbye) connections?.saidGoodbye(from)
          dht.gossip(from, message)
        },
        onViolation: (connection) => gater.violated(connection)
      })
      dht.start()
    }),
    () => Effect.andThen(Effect.sync(() => dht.stop()), Effect.sleep(partingTime))
  )

const trimmerOf = (host: Host, dht: Dht, transport: Libp2pTransport) =>
  new ConnectionTrimmer({
    host,
    bound: Libp2pHost.heldConnections,
    neighbours: () => new Set(dht.neighbours().map(({ id }) => id)),
    lastUsed: (id) => transport.lastUsed(id),
    announceRest: (id) => dht.announceRest(id)
  })

/** Caches what was read last, unless it was empty. */
const cached = <A>(read: () => ReadonlyArray<A>): () => ReadonlyArray<A> => {
  let known: ReadonlyArray<A> = []
  let readAt = 0
  return () => {
    const now = performance.now()
    if (known.length > 0 && now - readAt < announcedCacheMillis) return known
    known = read()
    readAt = now
    return known
  }
}
