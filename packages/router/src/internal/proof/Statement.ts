/** What a node states of itself when it proves its membership. Peers believe it, because the cluster key signs it. */
import { ProofFailed } from "./ProofFailure.ts"

export interface Statement {
  /** Multiaddrs in binary, without the peer's id. */
  readonly addresses: ReadonlyArray<Uint8Array>
  /** TCP port of the service beside the router; 0 for none. */
  readonly servicePort: number
  /** Such as a data centre; undefined if the node names none. */
  readonly zone: string | undefined
  /** The software that the node runs. */
  readonly agent: string
  /** The sum of the node's `Capability`s. Bits that this node does not know are ignored. */
  readonly capabilities: number
}

/** What a node can do beyond Kademlia, one bit each. */
export const Capability = { gossip: 1 } as const

const version = 1
const maxAddresses = 8
const maxAddressLength = 128
const maxTextLength = 128
const fixedLength = 7

const isPrintable = (text: string): boolean => /^[\x20-\x7e]*$/.test(text)

/** Whether a text can be stated as a zone: 1 to 128 printable ASCII characters. */
export const isZone = (text: string): boolean => text.length > 0 && text.length <= maxTextLength && isPrintable(text)

const prefixed = (bytes: Uint8Array): Uint8Array => Buffer.concat([Uint8Array.of(bytes.length), bytes])

/** The bytes that are signed and sent. Addresses beyond the first eight are left out. */
export const encode = ({ addresses, agent, capabilities, servicePort, zone = "" }: Statement): Uint8Array => {
  const fixed = Buffer.alloc(fixedLength)
  fixed.writeUInt8(version)
  fixed.writeUInt32BE(capabilities, 1)
  fixed.writeUInt16BE(servicePort, 5)
  const stated = addresses.filter(({ length }) => length <= maxAddressLength).slice(0, maxAddresses)
  return Buffer.concat([
    fixed,
    prefixed(Buffer.from(zone, "latin1")),
    prefixed(Buffer.from(agent.slice(0, maxTextLength), "latin1")),
    Uint8Array.of(stated.length),
    ...stated.map(prefixed)
  ])
}

/** Reads a statement. Bytes behind it are ignored: a later version may add some. Throws `ProofFailed`. */
export const decode = (bytes: Uint8Array): Statement => {
  const view = Buffer.from(bytes)
  if (view.length < fixedLength || view.readUInt8() < version) throw new ProofFailed("malformed")
  let position = fixedLength
  const byte = () => {
    const value = view[position++]
    if (value === undefined) throw new ProofFailed("malformed")
    return value
  }
  const part = (maxLength: number) => {
    const length = byte()
    const end = position + length
    if (length > maxLength || end > view.length) throw new ProofFailed("malformed")
    const taken = view.subarray(position, end)
    position = end
    return taken
  }
  const text = () => {
    const found = part(maxTextLength).toString("latin1")
    if (!isPrintable(found)) throw new ProofFailed("malformed")
    return found
  }
  const zone = text()
  const agent = text()
  const count = byte()
  if (count > maxAddresses) throw new ProofFailed("malformed")
  return {
    addresses: Array.from({ length: count }, () => new Uint8Array(part(maxAddressLength))),
    servicePort: view.readUInt16BE(5),
    zone: zone === "" ? undefined : zone,
    agent,
    capabilities: view.readUInt32BE(1)
  }
}
