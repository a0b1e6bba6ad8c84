/**
 * Messages of the Kademlia DHT protocol (libp2p specification, kad-dht). The six protobuf fields are read and written
 * without a library: each one is bounded, and parts are views that copy nothing.
 */

export const MessageType = { addProvider: 2, getProviders: 3, findNode: 4, ping: 5 } as const

/** A peer as messages name it: id and multiaddrs in binary. */
export interface WirePeer {
  readonly id: Uint8Array
  readonly addresses: ReadonlyArray<Uint8Array>
}

export interface Message {
  /** One of `MessageType`, or a number that this node does not answer. */
  readonly type: number
  /** The DHT key: a multihash for content, a peer id for `findNode`. At most 80 bytes. */
  readonly key: Uint8Array
  readonly closer: ReadonlyArray<WirePeer>
  readonly providers: ReadonlyArray<WirePeer>
}

/** Fields beyond these bounds are skipped. A longer key makes the message invalid: a part of it would be another key. */
const maxKeyLength = 80
const maxPeers = 100
const maxAddresses = 8
const maxAddressLength = 128
const maxIdLength = 64

const none: Uint8Array = new Uint8Array()

/** The bytes are not a message. */
export class InvalidMessage extends Error {
  override readonly name = "InvalidMessage"
}

class Reader {
  #position = 0
  readonly #bytes: Uint8Array
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }
  get done(): boolean {
    return this.#position >= this.#bytes.length
  }
  varint(): number {
    let value = 0
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.#bytes[this.#position++]
      if (byte === undefined) throw new InvalidMessage("a number is truncated")
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
    throw new InvalidMessage("a number is too large")
  }
  bytes(): Uint8Array {
    const end = this.varint() + this.#position
    if (end > this.#bytes.length) throw new InvalidMessage("a field is truncated")
    const part = this.#bytes.subarray(this.#position, end)
    this.#position = end
    return part
  }
  skip(wireType: number): void {
    switch (wireType) {
      case 0: {
        for (let length = 0; length < 10; length++) {
          const byte = this.#bytes[this.#position++]
          if (byte === undefined) throw new InvalidMessage("a number is truncated")
          if (byte < 0x80) return
        }
        throw new InvalidMessage("a number is too large")
      }
      case 1:
        this.#position += 8
        return
      case 2:
        this.bytes()
        return
      case 5:
        this.#position += 4
        return
      default:
        throw new InvalidMessage("a field has an unknown wire type")
    }
  }
}

const decodePeer = (bytes: Uint8Array): WirePeer => {
  const reader = new Reader(bytes)
  const addresses: Array<Uint8Array> = []
  let id: Uint8Array = none
  while (!reader.done) {
    const tag = reader.varint()
    if (tag === 0x0a) id = reader.bytes()
    else if (tag === 0x12) {
      const address = reader.bytes()
      if (addresses.length < maxAddresses && address.length <= maxAddressLength) addresses.push(address)
    } else reader.skip(tag & 7)
  }
  return { id, addresses }
}

/** Reads a message, without its length prefix. Its parts are views of `bytes`. Throws `InvalidMessage`. */
export const decode = (bytes: Uint8Array): Message => {
  const reader = new Reader(bytes)
  const closer: Array<WirePeer> = []
  const providers: Array<WirePeer> = []
  let type = 0
  let key: Uint8Array = none
  const take = (peers: Array<WirePeer>) => {
    const peer = decodePeer(reader.bytes())
    if (peers.length < maxPeers && peer.id.length > 0 && peer.id.length <= maxIdLength) peers.push(peer)
  }
  while (!reader.done) {
    const tag = reader.varint()
    if (tag === 0x08) type = reader.varint()
    else if (tag === 0x12) key = reader.bytes()
    else if (tag === 0x42) take(closer)
    else if (tag === 0x4a) take(providers)
    else reader.skip(tag & 7)
  }
  if (key.length > maxKeyLength) throw new InvalidMessage("a key is longer than 80 bytes")
  return { type, key, closer, providers }
}

const varintLength = (value: number): number => value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x20_0000 ? 3 : 4

const fieldLength = (length: number): number => 1 + varintLength(length) + length

const peerLength = ({ addresses, id }: WirePeer): number =>
  addresses.reduce((sum, address) => sum + fieldLength(address.length), fieldLength(id.length))

/** Writes a message as it travels over a stream: prefixed with its length. */
export const encodeFrame = ({ closer, key, providers, type }: Message): Uint8Array => {
  const peers = [...closer.map((peer) => [0x42, peer] as const), ...providers.map((peer) => [0x4a, peer] as const)]
  const length = 4 + (key.length === 0 ? 0 : fieldLength(key.length)) +
    peers.reduce((sum, [, peer]) => sum + fieldLength(peerLength(peer)), 0)
  const frame = new Uint8Array(varintLength(length) + length)
  let position = 0
  const varint = (value: number) => {
    let rest = value
    while (rest >= 0x80) {
      frame[position++] = (rest & 0x7f) | 0x80
      rest >>>= 7
    }
    frame[position++] = rest
  }
  const field = (tag: number, bytes: Uint8Array) => {
    frame[position++] = tag
    varint(bytes.length)
    frame.set(bytes, position)
    position += bytes.length
  }
  varint(length)
  frame[position++] = 0x08
  varint(type)
  if (key.length > 0) field(0x12, key)
  for (const [tag, peer] of peers) {
    frame[position++] = tag
    varint(peerLength(peer))
    field(0x0a, peer.id)
    for (const address of peer.addresses) field(0x12, address)
  }
  // clusterLevel 1, as go-libp2p writes it.
  frame[position++] = 0x50
  frame[position] = 1
  return frame
}

/** Writes frames that differ only in their keys, all of the same length: the common part is encoded once. */
export const encodeFrames = (like: Message, keys: ReadonlyArray<Uint8Array>): Uint8Array => {
  const first = encodeFrame(like)
  const prefix = first.findIndex((byte) => byte < 0x80) + 1
  const at = prefix + 2 + fieldLength(like.key.length) - like.key.length
  const frames = new Uint8Array(first.length * keys.length)
  for (const [index, key] of keys.entries()) {
    frames.set(first, index * first.length)
    frames.set(key, index * first.length + at)
  }
  return frames
}
