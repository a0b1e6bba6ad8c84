/** A peer that speaks the transport correctly, and leaves all protocols to the test. */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { generateKeyPair } from "@libp2p/crypto/keys"
import { identify } from "@libp2p/identify"
import type { Connection, PrivateKey, StreamHandler } from "@libp2p/interface"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import { FrameSplitter } from "@spegel-ts/router/internal/dht/rpc/FrameSplitter"
import { gossipProtocol, kademliaProtocol } from "@spegel-ts/router/internal/dht/rpc/Libp2pTransport"
import { decode, encodeFrame, type Message } from "@spegel-ts/router/internal/dht/rpc/Message"
import { message } from "@spegel-ts/router/internal/dht/rpc/Protocol"
import { initiate, type Proof, proofProtocol } from "@spegel-ts/router/internal/proof/Exchange"
import { StreamChannel } from "@spegel-ts/router/internal/proof/StreamChannel"
import { Effect } from "effect"
import { createLibp2p } from "libp2p"
import { sideOf } from "./Sides.ts"

/** Answers all Kademlia messages with themselves, and takes all gossip. */
export const answering: StreamHandler = (stream) => {
  const splitter = new FrameSplitter()
  stream.addEventListener("message", ({ data }) => {
    for (const frame of splitter.push(data.subarray())) {
      const { key, type } = decode(frame)
      if (stream.protocol === kademliaProtocol) stream.send(encodeFrame(message(type, key)))
    }
  })
}

export interface RawPeerOptions {
  readonly privateKey?: PrivateKey
  /** Serves exchanges of proofs. Default: the peer does not know their protocol. */
  readonly proof?: StreamHandler
  /** Serves Kademlia and gossip. Default: `answering`. */
  readonly serve?: StreamHandler
  /** The addresses that it claims. Default: where it listens. */
  readonly announce?: ReadonlyArray<string>
}

export const newIdentity = Effect.promise(() => generateKeyPair("Ed25519"))

/** Listens on an address until the scope closes. */
export const startRawPeer = (address: string, port: number, options: RawPeerOptions = {}) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const { announce, privateKey, proof, serve = answering } = options
      // Its connections come from its address, not from 127.0.0.1 like those of all peers on loopback. The transport hands
      // it to the socket, though its types do not name it.
      const dialOpts = { noDelay: true, localAddress: address }
      const host = await createLibp2p({
        ...(privateKey === undefined ? {} : { privateKey }),
        addresses: {
          listen: [`/ip4/${address}/tcp/${port}`],
          ...(announce === undefined ? {} : { announce: [...announce] })
        },
        transports: [tcp({ dialOpts })],
        connectionEncrypters: [noise()],
        streamMuxers: [yamux()],
        connectionMonitor: { enabled: false },
        services: { identify: identify() }
      })
      await host.handle([kademliaProtocol, gossipProtocol], serve)
      if (proof !== undefined) await host.handle(proofProtocol, proof)
      return host
    }),
    (host) => Effect.promise(() => Promise.resolve(host.stop())).pipe(Effect.timeoutOption("2 seconds"))
  )

export type RawPeer = Effect.Success<ReturnType<typeof startRawPeer>>

export const reach = (peer: RawPeer, address: string, port: number): Promise<Connection> =>
  peer.dial(multiaddr(`/ip4/${address}/tcp/${port}`))

/** The peer as messages name it, at an address in binary. */
export const wireOf = (peer: RawPeer, address: string, port: number) => ({
  id: peer.peerId.toMultihash().bytes,
  addresses: [multiaddr(`/ip4/${address}/tcp/${port}`).bytes]
})

/** Proves that the peer knows a key of the ring, by an exchange that it starts. Rejects with `ProofFailed`. */
export const prove = async (connection: Connection, peer: RawPeer, ring: KeyRing, host = 66): Promise<Proof> => {
  const stream = await connection.newStream(proofProtocol)
  const other = connection.remotePeer.toString()
  return initiate(new StreamChannel(stream), sideOf(peer.peerId.toString(), other, ring, host))
}

/** Sends messages on a new stream; resolves with the first answer, or with why there is none within a second. */
export const ask = async (
  connection: Connection,
  protocol: string,
  messages: ReadonlyArray<Message>,
  millis = 1000
): Promise<Message | string> => {
  const stream = await connection.newStream(protocol, { signal: AbortSignal.timeout(5000) })
  const splitter = new FrameSplitter()
  const answer = new Promise<Message | string>((resolve) => {
    stream.addEventListener("message", ({ data }) => {
      const [frame] = splitter.push(data.subarray())
      if (frame !== undefined) resolve(decode(frame))
    })
    stream.addEventListener("close", () => resolve("closed"))
    setTimeout(() => resolve("no answer"), millis)
  })
  stream.send(Buffer.concat(messages.map(encodeFrame)))
  return answer
}
