/** Measures the check of a peer's address: ours with Node's BlockList, and the same rules with Effect's net modules. */
import * as PeerAddress from "@spegel-ts/router/PeerAddress"
import { Result } from "effect"
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"

const cidrs = ["10.0.0.0/8", "fd00::/8"]
const ips = Array.from(
  { length: 1000 },
  (_, index) => index % 2 === 0 ? `10.${index & 255}.1.${index >> 8}` : `fd00::${index.toString(16)}`
)
const rounds = 50
const runs = 5

/** Microseconds for each address, the least of the runs. */
const least = (isUsable: (ip: string) => boolean): number => {
  const timed = Array.from({ length: runs }, () => {
    const begun = performance.now()
    for (let round = 0; round < rounds; round++) {
      if (!ips.every(isUsable)) throw new Error("a usable address was refused")
    }
    return 1000 * (performance.now() - begun) / rounds / ips.length
  })
  return Math.min(...timed)
}

const within = Result.getOrThrow(PeerAddress.parseCidrs(cidrs))
const networks = cidrs.map(IpNetwork.fromStringUnsafe)
/** Ranges for which the net modules have no predicate. */
const reserved = ["0.0.0.0/8", "224.0.0.0/3", "fd00:ec2::/32"].map(IpNetwork.fromStringUnsafe)

const isUsableByEffect = (text: string): boolean => {
  const parsed = NetAddress.ipFromString(text)
  if (Result.isFailure(parsed)) return false
  const ip = NetAddress.toCanonical(parsed.success)
  return !NetAddress.isLoopback(ip) && !NetAddress.isLinkLocal(ip) && !NetAddress.isMulticast(ip) &&
    !NetAddress.isUnspecified(ip) && !reserved.some(IpNetwork.contains(ip)) && networks.some(IpNetwork.contains(ip))
}

const ours = least((ip) => PeerAddress.isUsable(ip, { loopback: false, within }))
const effects = least(isUsableByEffect)
process.stdout.write(`microseconds an address: BlockList ${ours.toFixed(1)}, effect/net ${effects.toFixed(1)}\n`)
