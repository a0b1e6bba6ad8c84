/** A rogue that speaks the protocols by hand: it claims addresses, names providers and sends records as it likes. */
import type { Connection, StreamHandler } from "@libp2p/interface"
import { multiaddr } from "@multiformats/multiaddr"
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { FrameSplitter } from "@spegel-ts/router/internal/dht/rpc/FrameSplitter"
import { gossipProtocol, kademliaProtocol } from "@spegel-ts/router/internal/dht/rpc/Libp2pTransport"
import { decode, encodeFrame, MessageType, type WirePeer } from "@spegel-ts/router/internal/dht/rpc/Message"
import { GossipType, message } from "@spegel-ts/router/internal/dht/rpc/Protocol"
import { initiate, proofProtocol, respond, type Side } from "@spegel-ts/router/internal/proof/Exchange"
import { StreamChannel } from "@spegel-ts/router/internal/proof/StreamChannel"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import { type RawPeer, startRawPeer } from "@spegel-ts/testing/router/RawPeer"
import { Effect } from "effect"

export interface RawRogueOptions {
  readonly address: string
  /** Where its registry is said to be. */
  readonly servicePort: number
  /** The key that it proves; undefined if it proves nothing. */
  readonly ring: KeyRing | undefined
  /** The address that it says it has. Default: its own. */
  readonly claimed?: string
  /** The providers that it names for a DHT key. */
  readonly providersOf?: (key: Uint8Array) => ReadonlyArray<WirePeer>
}

export interface Connected {
  readonly connection: Connection
  /** Whether the node has accepted the rogue's proof. */
  readonly isProved: boolean
  readonly closed: Promise<void>
}

const bytesOf = (address: string, port: number): Uint8Array => multiaddr(`/ip4/${address}/tcp/${port}`).bytes

/** A peer as messages name it. */
export const wirePeer = (id: Uint8Array, address: string, port: number): WirePeer => ({
  id,
  addresses: [bytesOf(address, port)]
})

/** Listens until the scope closes. */
export const start = Effect.fnUntraced(function*(options: RawRogueOptions) {
  const { address, claimed = address, providersOf = () => [], ring, servicePort } = options
  const port = yield* freePort
  /** How often it was asked who provides something. */
  const asked = { lookups: 0 }
  const serve: StreamHandler = (stream) => {
    const splitter = new FrameSplitter()
    stream.addEventListener("message", ({ data }) => {
      for (const frame of splitter.push(data.subarray())) {
        const { key, type } = decode(frame)
        if (stream.protocol !== kademliaProtocol) continue
        if (type === MessageType.getProviders) asked.lookups++
        if (type === MessageType.addProvider) continue
        stream.send(encodeFrame(message(type, key, [], type === MessageType.getProviders ? providersOf(key) : [])))
      }
    })
  }
  const sideTo = (self: string, { remotePeer }: Connection, ring: KeyRing): Side => ({
    self,
    other: remotePeer.toString(),
    ring,
    statement: {
      addresses: [bytesOf(claimed, port)],
      servicePort,
      zone: undefined,
      agent: "rogue",
      capabilities: 1
    }
  })
  const holder: { peer?: RawPeer } = {}
  const proof: StreamHandler = (stream, connection) => {
    if (ring === undefined || holder.peer === undefined) return
    const side = sideTo(holder.peer.peerId.toString(), connection, ring)
    void respond(new StreamChannel(stream), side).catch(() => undefined)
  }
  const peer = yield* startRawPeer(address, port, {
    serve,
    announce: [`/ip4/${claimed}/tcp/${port}`],
    ...(ring === undefined ? {} : { proof })
  })
  holder.peer = peer
  const self = wirePeer(peer.peerId.toMultihash().bytes, claimed, port)
  const id = peer.peerId.toString()
  return {
    id,
    asked,
    /** Connects to a node (`IP:PORT`), and proves what it can. `closed` resolves when the node ends the connection. */
    connect: async (node: string): Promise<Connected> => {
      const [host, nodePort] = node.split(":")
      const connection = await peer.dial(multiaddr(`/ip4/${host}/tcp/${nodePort}`), {
        signal: AbortSignal.timeout(10_000)
      })
      const closed = new Promise<void>((resolve) => {
        connection.addEventListener("close", () => resolve())
        if (connection.status !== "open") resolve()
      })
      const prove = async (ring: KeyRing) => {
        const stream = await connection.newStream(proofProtocol)
        await initiate(new StreamChannel(stream), sideTo(id, connection, ring))
      }
      const isProved = ring !== undefined && await prove(ring).then(() => true, () => false)
      return { connection, closed, isProved }
    },
    /** Says that it is a member that gossips, and where its registry is. */
    hello: async (connection: Connection): Promise<void> => {
      const stream = await connection.newStream(gossipProtocol, { signal: AbortSignal.timeout(5000) })
      const key = Buffer.alloc(8)
      key.writeUInt16BE(servicePort)
      stream.send(encodeFrame(message(GossipType.hello, key)))
    },
    /** Sends records of keys that it says to provide, some at a time. */
    provide: async (connection: Connection, keys: Iterable<Uint8Array>): Promise<void> => {
      const stream = await connection.newStream(kademliaProtocol, { signal: AbortSignal.timeout(5000) })
      let frames: Array<Uint8Array> = []
      const flush = async () => {
        const sent = stream.send(Buffer.concat(frames))
        frames = []
        if (!sent) await stream.onDrain({ signal: AbortSignal.timeout(20_000) })
      }
      for (const key of keys) {
        frames.push(encodeFrame(message(MessageType.addProvider, key, [], [self])))
        if (frames.length === 500) await flush()
      }
      if (frames.length > 0) await flush()
    },
    /** Sends a ping every `millis`, to be the member that was heard from last; until the connection ends. */
    keepPinging: async (connection: Connection, millis: number): Promise<void> => {
      const stream = await connection.newStream(kademliaProtocol)
      const ping = encodeFrame(message(MessageType.ping, new Uint8Array()))
      const timer = setInterval(() => {
        if (stream.writeStatus === "writable") stream.send(ping)
      }, millis)
      stream.addEventListener("close", () => clearInterval(timer))
    }
  }
})

export const dhtKey = (key: string): Uint8Array => ContentKey.toDhtKey(ContentKey.make(key))
