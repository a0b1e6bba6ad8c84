/**
 * The address that a peer counts for. A machine may have as many peer ids as it likes, and anybody may name an id together with an
 * address that is not its own. So votes count addresses, and wrong bytes are held against an id at the address that sent them.
 */
import type { Peer } from "@spegel-ts/router/Peer"
import { isIPv6, SocketAddress } from "node:net"
import * as ClientAddress from "../listen/ClientAddress.ts"

/** The one spelling of an IP literal. An IPv4 address that is mapped into IPv6 is the IPv4 address. */
export const canonical = (address: string): string =>
  isIPv6(address) && !address.includes("%")
    ? ClientAddress.of({ remoteAddress: new SocketAddress({ address, family: "ipv6" }).address })
    : address

/** The address that a peer counts for before it has answered: its first, where the router has met it if it has. */
export const of = ({ addresses: [address = ""] }: Peer): string => canonical(address)

/** A peer at the one of its addresses that answered. */
export const answering = (peer: Peer, address: string): Peer => ({ ...peer, addresses: [address] })
