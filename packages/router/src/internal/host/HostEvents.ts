/** Tells the DHT which peers connect to the host, what they say of themselves, and which connections end. */
import type { Connection, IdentifyResult, Libp2p as Host, PeerId } from "@libp2p/interface"
import type { Multiaddr } from "@multiformats/multiaddr"
import { Effect, Option, type Scope } from "effect"
import * as PeerAddress from "../../PeerAddress.ts"
import type { Dht } from "../dht/Dht.ts"
import { positionOf } from "../dht/Distance.ts"
import type { PeerRecord } from "../dht/members/MemberTable.ts"
import { gossipProtocol, kademliaProtocol } from "../dht/rpc/Libp2pTransport.ts"
import type { Outcome } from "../proof/Admission.ts"
import type { Proof } from "../proof/Exchange.ts"
import { Capability } from "../proof/Statement.ts"
import type { Guard } from "./DhtEnvironment.ts"
import { DialBack } from "./DialBack.ts"
import type { IdentityConflicts } from "./IdentityConflicts.ts"
import type { MembershipProofs } from "./MembershipProofs.ts"

export interface HostEventsOptions {
  readonly host: Host
  readonly dht: Dht
  readonly conflicts: IdentityConflicts
  /** The addresses that a peer may claim. */
  readonly accepted: PeerAddress.UsableOptions
  readonly proofs: MembershipProofs
  readonly guard: Guard
}

interface Following extends HostEventsOptions {
  readonly dialBack: DialBack
}

/** Follows the host while the scope is open. */
export const follow = (options: HostEventsOptions): Effect.Effect<void, never, Scope.Scope> => {
  const { dht, guard, host } = options
  const following = { ...options, dialBack: new DialBack(host) }
  const onIdentify = (event: CustomEvent<IdentifyResult>) => guard(() => identified(following, event.detail))
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

const identified = (options: Following, peer: IdentifyResult): void => {
  const { guard, proofs: { admission, connections } } = options
  connections?.identified(peer.connection, peer.protocols)
  const act = (outcome: Outcome) => {
    // The statement that a peer has proved counts, and not what it says here.
    if (outcome._tag === "Unproved") introduced(options, peer)
  }
  const outcome = admission.now(peer.connection)
  if (outcome === undefined) void admission.settled(peer.connection).then((outcome) => guard(() => act(outcome)))
  else act(outcome)
}

/** A peer that has proved nothing has said who it is. */
const introduced = (options: Following, peer: IdentifyResult): void => {
  const { accepted, dht, dialBack, proofs } = options
  if (!peer.protocols.includes(kademliaProtocol)) return
  const remote = remoteIp(peer.connection)
  const claimed = addressesOf(remote, peer.listenAddrs, accepted)
  // Where others prove who they are, such a peer is only where it is seen.
  const isStrict = proofs.connections !== undefined
  const addresses = isStrict ? claimed.filter((address) => isAt(address, remote)) : claimed
  if (isStrict && addresses.length === 0) return dialBack.dial(peer.peerId.toString(), claimed)
  noticeMove(options, peer.peerId, addresses)
  dht.connected({
    ...recordOf(peer.peerId, addresses),
    agent: peer.agentVersion,
    ours: peer.protocols.includes(gossipProtocol),
    ...(isStrict && remote !== undefined ? { group: remote } : {})
  })
}

/** A peer has proved its membership, and what it states. Returns false if none of its addresses is where it is seen. */
export const proved = (
  options: Pick<HostEventsOptions, "accepted" | "conflicts" | "dht">,
  connection: Connection,
  { keyId, statement }: Proof
): boolean => {
  const remote = remoteIp(connection)
  const stated = statement.addresses.flatMap((bytes) => Option.toArray(PeerAddress.fromBytes(bytes)))
  const addresses = addressesOf(remote, stated, options.accepted)
  noticeMove(options, connection.remotePeer, addresses)
  const record = recordOf(connection.remotePeer, addresses)
  options.dht.connected({
    ...record,
    agent: statement.agent,
    ours: (statement.capabilities & Capability.gossip) !== 0,
    group: groupOf(addresses, remote, options.dht.members.get(record.id)?.group),
    proof: { keyId, servicePort: statement.servicePort, zone: statement.zone }
  })
  return addresses.some((address) => isAt(address, remote))
}

const recordOf = (peer: PeerId, addresses: ReadonlyArray<Multiaddr>): PeerRecord => {
  const idBytes = peer.toMultihash().bytes
  return {
    id: peer.toString(),
    idBytes,
    position: positionOf(idBytes),
    addresses: addresses.map(({ bytes }) => bytes)
  }
}

/**
 * The group of a peer that has proved these addresses: the one at which it is seen, or was seen before. Members that are seen
 * nowhere that they state are in groups of their own, so that they cannot crowd out a node by stating its address.
 */
const groupOf = (
  addresses: ReadonlyArray<Multiaddr>,
  remote: string | undefined,
  before: string | undefined
): string => {
  const stated = addresses.flatMap((address) => Option.toArray(PeerAddress.ipOf(address)))
  return [remote, before].find((ip) => ip !== undefined && stated.includes(ip)) ?? `elsewhere: ${stated[0] ?? ""}`
}

/** Tells the detector of identity conflicts where a peer was, and where it is now. */
const noticeMove = (
  { conflicts, dht }: Pick<HostEventsOptions, "conflicts" | "dht">,
  peer: PeerId,
  now: ReadonlyArray<Multiaddr>
): void => {
  const id = peer.toString()
  const before = dht.members.get(id)?.addresses ?? []
  conflicts.introduced(id, before.flatMap((address) => Option.toArray(PeerAddress.fromBytes(address))), now)
}

const remoteIp = ({ remoteAddr }: Connection): string | undefined => Option.getOrUndefined(PeerAddress.ipOf(remoteAddr))

const isAt = (address: Multiaddr, ip: string | undefined): boolean =>
  ip !== undefined && Option.contains(PeerAddress.ipOf(address), ip)

/** The addresses that a peer may have, those at the IP of its connection first: they work. */
const addressesOf = (
  remote: string | undefined,
  claimed: ReadonlyArray<Multiaddr>,
  accepted: PeerAddress.UsableOptions
): ReadonlyArray<Multiaddr> => {
  const usable = claimed.filter((address) => PeerAddress.isUsableAddress(address, accepted))
  return [...usable.filter((address) => isAt(address, remote)), ...usable.filter((address) => !isAt(address, remote))]
    .map(PeerAddress.withoutId)
}
