/** The DHT on a libp2p host: joins the core, its transport and the host, and starts and stops them together. */
import type { Libp2p as Host } from "@libp2p/interface"
import * as Background from "@spegel-ts/background/Background"
import { Duration, Effect, Option } from "effect"
import type { Libp2pOptions } from "../../Libp2p.ts"
import * as PeerAddress from "../../PeerAddress.ts"
import { Dht } from "../dht/Dht.ts"
import { Libp2pTransport } from "../dht/rpc/Libp2pTransport.ts"
import { ConnectionGater } from "./ConnectionGater.ts"
import { ConnectionTrimmer } from "./ConnectionTrimmer.ts"
import * as DhtEnvironment from "./DhtEnvironment.ts"
import * as HostEvents from "./HostEvents.ts"
import * as Libp2pHost from "./Libp2pHost.ts"
import * as RouterMetrics from "./RouterMetrics.ts"

export interface DhtNode {
  readonly host: Host
  readonly dht: Dht
  /** Multiaddrs in binary that this node announces now, without its id. */
  readonly announced: () => ReadonlyArray<Uint8Array>
  /** The addresses that a peer may claim. */
  readonly accepted: PeerAddress.UsableOptions
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
  const { conflicts, host } = yield* Libp2pHost.make({ ...options, loopback, gater })
  const idBytes = host.peerId.toMultihash().bytes
  const announced = cached(() => host.getMultiaddrs().map((address) => PeerAddress.withoutId(address).bytes))
  const transport = new Libp2pTransport(host, () => ({ id: idBytes, addresses: announced() }))
  const dht = new Dht({
    self: { id: host.peerId.toString(), idBytes },
    addresses: announced,
    servicePort: options.servicePort ?? 0,
    environment: DhtEnvironment.make(accepted, guard),
    transport,
    ttlMillis: Duration.toMillis(options.recordTtl ?? defaultRecordTtl),
    refreshMillis: Duration.toMillis(options.refreshInterval ?? defaultRefreshInterval)
  })
  yield* serve(dht, transport, gater)
  yield* HostEvents.follow({ host, dht, conflicts, accepted, guard })
  yield* RouterMetrics.initialise
  yield* RouterMetrics.publish(() => ({ dht: dht.counts, transport: transport.counts }))
  yield* Background.keepRunning("connection economy", trimmerOf(host, dht, transport).run(partingTime))
  return { host, dht, announced, accepted } satisfies DhtNode
})

const serve = (dht: Dht, transport: Libp2pTransport, gater: ConnectionGater) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      await transport.serve({
        answer: (from, address, message) => dht.answer(from, address, message),
        gossip: (from, message) => dht.gossip(from, message),
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
