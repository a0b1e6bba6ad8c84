/** The process around the DHT core: real clocks and timers, and libp2p's ids and addresses. */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import { Option } from "effect"
import { base58btc } from "multiformats/bases/base58"
import { uptime } from "node:os"
import * as PeerAddress from "../../PeerAddress.ts"
import { copied } from "../dht/members/MemberTable.ts"
import { type Environment, textOf } from "../dht/rpc/Protocol.ts"

/** Runs a callback of a timer or of the host, and keeps an exception in it from ending the process. */
export type Guard = (run: () => void) => void

const idTexts = new BoundedMap<string, string>(10_000)

/** Base 58 is slow, and the same ids come again and again. */
const idText = (bytes: Uint8Array): string => {
  const key = textOf(bytes)
  const known = idTexts.get(key)
  if (known !== undefined) return known
  const text = base58btc.baseEncode(bytes)
  idTexts.set(key, text)
  return text
}

/** The IP of a TCP multiaddr in binary. */
export const ipOfBytes = (address: Uint8Array): Option.Option<string> =>
  Option.flatMap(PeerAddress.fromBytes(address), PeerAddress.ipOf)

/** `accepted` says which addresses a peer may claim. */
export const make = (accepted: PeerAddress.UsableOptions, guard: Guard): Environment => ({
  now: () => performance.now(),
  uptime: () => uptime() * 1000,
  random: Math.random,
  after: (millis, run) => {
    const timer = setTimeout(() => guard(run), millis)
    return () => clearTimeout(timer)
  },
  idText,
  usable: (addresses) =>
    addresses.filter((address) => Option.exists(ipOfBytes(address), (ip) => PeerAddress.isUsable(ip, accepted))),
  record: copied,
  groupOf: ([first]) => first === undefined ? "" : Option.getOrElse(ipOfBytes(first), () => "")
})
