/** The one multiaddr by which a node names itself where only one fits, such as in a lease. */
import { Data, Effect, Option } from "effect"
import type { BlockList } from "node:net"
import { isIPv4 } from "node:net"
import { networkInterfaces } from "node:os"
import { Identity } from "./Identity.ts"
import * as PeerAddress from "./PeerAddress.ts"

/** No interface has an address that a peer could dial. The node cannot take part in an election. */
export class NoUsableAddress extends Data.TaggedError("NoUsableAddress") {
  override get message() {
    return "this node has no address that peers could reach; let the router listen on one IP, or check the CIDRs of the peers"
  }
}

/**
 * Returns `/ip4/10.0.0.7/tcp/5001/p2p/12D3Koo...`, with the IP that is listened on, or else the first usable one of this
 * host's interfaces, IPv4 before IPv6. A pod has one; on a machine with several, `host` or `peerCidrs` decides.
 */
export const make = Effect.fnUntraced(function*(options: {
  readonly host: Option.Option<string>
  readonly port: number
  readonly peerCidrs: BlockList | undefined
}) {
  const { id } = yield* Identity
  const listened = Option.filter(options.host, (ip) => PeerAddress.isUsable(ip, { loopback: true }))
  const interfaces = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? [])
    .map(({ address }) => address)
    .filter((ip) => PeerAddress.isUsable(ip, { loopback: false, within: options.peerCidrs }))
  const ip = Option.getOrUndefined(listened) ?? interfaces.find(isIPv4) ?? interfaces[0]
  if (ip === undefined) return yield* new NoUsableAddress()
  return `${PeerAddress.ofSocket(ip, options.port).toString()}/p2p/${id}`
})
