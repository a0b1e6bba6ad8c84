/**
 * IP addresses and multiaddrs of peers: which ones a node announces, and which ones it accepts from others. Everything that a
 * peer says of itself is untrusted. docs/decisions/0010-network-addresses.md says why `node:net` checks them.
 */
import { type Multiaddr, multiaddr } from "@multiformats/multiaddr"
import { Data, Option, Result } from "effect"
import { BlockList, isIP, isIPv4 } from "node:net"

const loopback = new BlockList()
loopback.addSubnet("127.0.0.0", 8, "ipv4")
loopback.addAddress("::1", "ipv6")

/** Never a peer's: unspecified, link-local (with the clouds' metadata services), multicast, reserved, broadcast. */
const unusable = new BlockList()
unusable.addSubnet("0.0.0.0", 8, "ipv4")
unusable.addSubnet("169.254.0.0", 16, "ipv4")
unusable.addSubnet("224.0.0.0", 3, "ipv4")
unusable.addAddress("::", "ipv6")
unusable.addSubnet("fe80::", 10, "ipv6")
unusable.addSubnet("ff00::", 8, "ipv6")
unusable.addSubnet("fd00:ec2::", 32, "ipv6")

const family = (ip: string) => isIPv4(ip) ? "ipv4" : "ipv6"

/** Whether an IP literal is a loopback address; false for anything else. */
export const isLoopback = (ip: string): boolean => isIP(ip) !== 0 && loopback.check(ip, family(ip))

/** The addresses that a peer may have. */
export interface UsableOptions {
  /** Whether loopback addresses are usable: only for a node that listens on one itself. */
  readonly loopback: boolean
  /** The ranges in which all peers are; undefined means anywhere. */
  readonly within?: BlockList | undefined
}

/** Whether a peer may have this IP literal; false for anything that is not one. */
export const isUsable = (ip: string, { loopback, within }: UsableOptions): boolean =>
  isIP(ip) !== 0 && !unusable.check(ip, family(ip)) && (loopback || !isLoopback(ip)) &&
  (within === undefined || within.check(ip, family(ip)))

/** A text is not a CIDR. */
export class InvalidCidr extends Data.TaggedError("InvalidCidr")<{ readonly cidr: string }> {
  override get message() {
    return `${JSON.stringify(this.cidr)} is not a range of addresses: expected a CIDR such as 10.0.0.0/8 or fd00::/8`
  }
}

/** Parses CIDRs such as `10.0.0.0/8`, for `within`. Bits behind the prefix are ignored. No CIDRs mean no restriction. */
export const parseCidrs = (cidrs: ReadonlyArray<string>): Result.Result<BlockList | undefined, InvalidCidr> => {
  if (cidrs.length === 0) return Result.succeed(undefined)
  const within = new BlockList()
  for (const cidr of cidrs) {
    const [, ip = "", length] = /^([0-9a-fA-F:.]+)\/([0-9]{1,3})$/.exec(cidr) ?? []
    if (isIP(ip) === 0 || Number(length) > (isIPv4(ip) ? 32 : 128)) return Result.fail(new InvalidCidr({ cidr }))
    within.addSubnet(ip, Number(length), family(ip))
  }
  return Result.succeed(within)
}

/** The IP literal of a TCP multiaddr; none for DNS names, other transports and relayed addresses. */
export const ipOf = (address: Multiaddr): Option.Option<string> => {
  const [host, transport, ...rest] = address.getComponents()
  const plain = rest.every(({ name }) => name === "p2p")
  return plain && (host?.name === "ip4" || host?.name === "ip6") && transport?.name === "tcp"
    ? Option.fromUndefinedOr(host.value)
    : Option.none()
}

const p2pCode = 421

/** Whether a peer may be at this multiaddr: it has to be a usable IP and a TCP port. */
export const isUsableAddress = (address: Multiaddr, options: UsableOptions): boolean =>
  Option.exists(ipOf(address), (ip) => isUsable(ip, options))

/** The multiaddr without a `/p2p/<id>` at its end. */
export const withoutId = (address: Multiaddr): Multiaddr => address.decapsulateCode(p2pCode)

/** Decodes a binary multiaddr; none if the bytes are not one. */
export const fromBytes = (bytes: Uint8Array): Option.Option<Multiaddr> => {
  try {
    return Option.some(multiaddr(bytes))
  } catch {
    return Option.none()
  }
}

/** The multiaddr of a TCP socket. Throws if `ip` is not an IP literal. */
export const ofSocket = (ip: string, port: number): Multiaddr =>
  multiaddr(`/${isIPv4(ip) ? "ip4" : "ip6"}/${ip}/tcp/${port}`)
