/** A node of either router, as the benchmark drives it. */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { identify } from "@libp2p/identify"
import { kadDHT, passthroughMapper } from "@libp2p/kad-dht"
import { ping } from "@libp2p/ping"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import * as Libp2p from "@spegel-ts/router/Libp2p"
import { Router } from "@spegel-ts/router/Router"
import { Context, Effect, Exit, Layer, Option, Result, Scope, Stream } from "effect"
import { createLibp2p } from "libp2p"
import { CID } from "multiformats/cid"
import * as Digest from "multiformats/hashes/digest"

export type Implementation = "spegel-ts" | "stock"

export interface NodeUnderTest {
  readonly id: string
  readonly peers: () => Promise<number>
  readonly provide: (keys: ReadonlyArray<string>) => Promise<void>
  /** Whether somebody provides the key; resolves at the first one found, or when it is sure that there is none. */
  readonly find: (key: string) => Promise<boolean>
  readonly stop: () => Promise<void>
}

const startOurs = async (address: string, port: number, bootstrap: string): Promise<NodeUnderTest> => {
  const scope = await Effect.runPromise(Scope.make())
  const layer = Libp2p.layer({ host: Option.some(address), port, dataDir: Option.none(), registryPort: 5000 }).pipe(
    Layer.provide(Bootstrap.layer(Result.getOrThrow(Bootstrap.fromStatic([`${bootstrap}:${port}`]))))
  )
  const router = Context.get(await Effect.runPromise(Layer.buildWithScope(Layer.fresh(layer), scope)), Router)
  const { id } = await Effect.runPromise(router.self)
  return {
    id,
    peers: () => Effect.runPromise(Effect.map(router.peers, ({ length }) => length)),
    provide: (keys) => Effect.runPromise(router.advertise(keys.map(ContentKey.make))),
    find: (key) =>
      Effect.runPromise(Effect.map(Stream.runHead(router.lookup(ContentKey.make(key), { count: 3 })), Option.isSome)),
    stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

const startStock = async (address: string, port: number, bootstrap: string): Promise<NodeUnderTest> => {
  const host = await createLibp2p({
    addresses: { listen: [`/ip4/${address}/tcp/${port}`] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionMonitor: { enabled: false },
    connectionManager: { maxConnections: 300, inboundConnectionThreshold: 1000, maxIncomingPendingConnections: 100 },
    services: {
      identify: identify(),
      ping: ping(),
      dht: kadDHT({
        protocol: "/spegel/kad/1.0.0",
        clientMode: false,
        allowQueryWithZeroPeers: true,
        peerInfoMapper: passthroughMapper
      })
    }
  })
  // All start at once: the first node may not listen yet.
  for (let tries = address === bootstrap ? 50 : 0; host.getPeers().length === 0 && tries < 50; tries++) {
    await host.dial(multiaddr(`/ip4/${bootstrap}/tcp/${port}`)).catch(() =>
      new Promise((resolve) => setTimeout(resolve, 200))
    )
  }
  const cid = (key: string) => CID.createV1(0x55, Digest.decode(Libp2p.dhtKey(ContentKey.make(key))))
  return {
    id: host.peerId.toString(),
    peers: () => Promise.resolve(host.getPeers().length),
    provide: async (keys) => {
      for (const key of keys) {
        for await (const _event of host.services.dht.provide(cid(key), { signal: AbortSignal.timeout(10_000) })) {
          // Driven to its end.
        }
      }
    },
    find: async (key) => {
      const events = host.services.dht.findProviders(cid(key), { signal: AbortSignal.timeout(10_000) })
      for await (const event of events) if (event.name === "PROVIDER" && event.providers.length > 0) return true
      return false
    },
    stop: () => Promise.resolve(host.stop())
  }
}

export const start = (
  implementation: Implementation,
  address: string,
  port: number,
  bootstrap: string
): Promise<NodeUnderTest> => (implementation === "stock" ? startStock : startOurs)(address, port, bootstrap)
