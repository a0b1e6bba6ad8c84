/**
 * Reads the kernel's queues of TCP connections: bytes sent that the other side has not acknowledged, and bytes received
 * that nobody has read. Node has no API for either; Linux lists them for all sockets of the network namespace.
 */
import { readFileSync } from "node:fs"
import { SocketAddress } from "node:net"
import { endianness } from "node:os"

export interface SocketQueue {
  readonly localPort: number
  /** The other side's. An IPv4 address looks the same whether the socket is an IPv6 one or not. */
  readonly address: string
  readonly port: number
  /** Bytes in the send queue. */
  readonly unsent: number
  /** Bytes in the receive queue. */
  readonly unread: number
}

/** `sl: local remote state tx_queue:rx_queue ...`, all in hexadecimal (proc_net_tcp in the kernel's documentation). */
const line = /^ *\d+: [0-9A-F]+:([0-9A-F]{4}) ([0-9A-F]+):([0-9A-F]{4}) ([0-9A-F]{2}) ([0-9A-F]{8}):([0-9A-F]{8}) /gm
const listening = "0A"
const v4InV6 = "00000000000000000000ffff"

/** The kernel prints an address as 32-bit words in the byte order of the machine. */
const addressOf = (hex: string): string => {
  const words = Buffer.from(hex, "hex")
  const bytes = endianness() === "LE" ? words.swap32() : words
  const text = bytes.toString("hex")
  if (bytes.length === 4 || text.startsWith(v4InV6)) return bytes.subarray(-4).join(".")
  return new SocketAddress({ family: "ipv6", address: text.replace(/.{4}(?=.)/g, "$&:") }).address
}

/** Parses `/proc/net/tcp` or `tcp6`; keeps the connections on these local ports. */
export const parse = (table: string, isWanted: (localPort: number) => boolean): ReadonlyArray<SocketQueue> =>
  [...table.matchAll(line)].flatMap(([, local = "", address = "", port = "", state, unsent = "", unread = ""]) => {
    const localPort = Number.parseInt(local, 16)
    if (state === listening || !isWanted(localPort)) return []
    return {
      localPort,
      address: addressOf(address),
      port: Number.parseInt(port, 16),
      unsent: Number.parseInt(unsent, 16),
      unread: Number.parseInt(unread, 16)
    }
  })

const textOf = (file: string): string | undefined => {
  try {
    return readFileSync(file, "latin1")
  } catch {
    return undefined
  }
}

/**
 * The queues of the connections on these local ports; undefined if the system does not tell.
 *
 * Reads synchronously: the kernel gives such a file in parts of a few KiB. With a turn of the event loop between them, the
 * whole takes seconds while bodies keep the loop busy, and these bodies wait for it.
 */
export const read = (isWanted: (localPort: number) => boolean): ReadonlyArray<SocketQueue> | undefined => {
  const table = textOf("/proc/self/net/tcp")
  // Without IPv6 there is no second table.
  return table === undefined
    ? undefined
    : [table, textOf("/proc/self/net/tcp6") ?? ""].flatMap((each) => parse(each, isWanted))
}

/** The most that the kernel holds unsent of one connection, in bytes; its usual default if it does not tell. */
export const maxUnsent = (): number => Number(textOf("/proc/sys/net/ipv4/tcp_wmem")?.split(/\s+/)[2]) || 4 * 1024 * 1024
