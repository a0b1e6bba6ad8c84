/** Tells the DHT which peers connect to the host, what they say of themselves, and which connections end. */
import type { IdentifyResult, Libp2p as Host, PeerId } from "@libp2p/interface"
import type { Multiaddr } from "@multiformats/multiaddr"
import { Effect, Option, type Scope } from "effect"
import * as PeerAddress from "../../PeerAddress.ts"
import type { Dht } from "../dht/Dht.ts"
import { positionOf } from "../dht/Distance.ts"
import { gossipProtocol, kademliaProtocol } from "../dht/rpc/Libp2pTransport.ts"
import type { Guard } from "./DhtEnvironment.ts"
import type { IdentityConflicts } from "./IdentityConflicts.ts"

export interface HostEventsOptions {
  readonly host: Host
  readonly dht: Dht
  readonly conflicts: IdentityConflicts
  /** The addresses that a peer may claim. */
  readonly accepted: PeerAddress.UsableOptions
  readonly guard: Guard
}

/** Follows the host while the scope is open. */
export const follow = (options: HostEventsOptions): Effect.Effect<void, never, Scope.Scope> => {
  const { dht, guard, host } = options
  const onIdentify = (event: CustomEvent<IdentifyResult>) => guard(() => identified(options, event.detail))
  const onDisconnect = ({ detail }: CustomEvent<PeerId>) => guard(() => dht.disconnected(detail.toString()))
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

const identified = ({ accepted, conflicts, dht }: HostEventsOptions, peer: IdentifyResult): void => {
  if (!peer.protocols.includes(kademliaProtocol)) return
  const id = peer.peerId.toString()
  const addresses = addressesOf(peer, accepted)
  const before = dht.members.get(id)?.addresses ?? []
  conflicts.introduced(
    id,
    before.flatMap((address) => Option.toArray(PeerAddress.fromBytes(address))),
    addresses
  )
  const idBytes = peer.peerId.toMultihash().bytes
  dht.connected({
    id,
    idBytes,
    position: positionOf(idBytes),
    addresses: addresses.map(({ bytes }) => bytes),
    agent: peer.agentVersion,
    ours: peer.protocols.includes(gossipProtocol)
  })
}

/** The addresses that a peer claims and may have. Those at the IP of its connection are first: only that IP is proved. */
const addressesOf = (
  { connection, listenAddrs }: IdentifyResult,
  accepted: PeerAddress.UsableOptions
): ReadonlyArray<Multiaddr> => {
  const remote = Option.getOrUndefined(PeerAddress.ipOf(connection.remoteAddr))
  const claimed = listenAddrs.filter((address) => PeerAddress.isUsableAddress(address, accepted))
  const isProved = (address: Multiaddr) => remote !== undefined && Option.contains(PeerAddress.ipOf(address), remote)
  return [...claimed.filter(isProved), ...claimed.filter((address) => !isProved(address))].map(PeerAddress.withoutId)
}
