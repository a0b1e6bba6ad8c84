/** The one multiaddr by which a node names itself where there is room for one, such as in a lease. */
import { Data, Effect, Option } from "effect"
import type { BlockList } from "node:net"
import { isIPv4 } from "node:net"
import { networkInterfaces } from "node:os"
import { Identity } from "./Identity.ts"
import * as PeerAddress from "./PeerAddress.ts"

/** No interface has an address that a peer could dial. */
export class NoUsableAddress extends Data.TaggedError("NoUsableAddress") {
  override get message() {
    return "this node has no address that peers could reach; name one with --router-addr=IP:PORT, or check --peer-cidrs"
  }
}

/**
 * `/ip4/10.0.0.7/tcp/5001/p2p/12D3Koo...`: the address that is listened on, else the first of this host's interfaces that
 * peers may have, IPv4 before IPv6. A pod has one; where there are several, `peerCidrs` or `host` decide.
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
