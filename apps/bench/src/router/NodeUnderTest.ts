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
import { Context, Duration, Effect, Exit, Layer, Option, Result, Schedule, Scope, Stream } from "effect"
import { createLibp2p } from "libp2p"
import { CID } from "multiformats/cid"
import * as Digest from "multiformats/hashes/digest"
import { join } from "node:path"

export type Implementation = "spegel-ts" | "stock"

/** A lookup of a key: when the holder that was asked for was named, and when all was said, in milliseconds. */
export interface Located {
  readonly foundMillis: number | null
  readonly totalMillis: number
  /** Whether anybody was named. */
  readonly any: boolean
}

export interface NodeOptions {
  readonly implementation: Implementation
  readonly address: string
  readonly port: number
  readonly bootstrap: ReadonlyArray<string>
  readonly dataDir?: string
  readonly refreshMillis?: number
}

export interface NodeUnderTest {
  readonly id: string
  readonly peers: () => Promise<number>
  readonly provide: (keys: ReadonlyArray<string>) => Promise<void>
  /** Whether somebody provides the key; resolves at the first one found, or when it is sure that there is none. */
  readonly find: (key: string) => Promise<boolean>
  readonly locate: (key: string, holder: string) => Promise<Located>
  readonly withdraw: (keys: ReadonlyArray<string>) => Promise<void>
  readonly stop: () => Promise<void>
}

const notMeasured = () => Promise.reject(new Error("only our own router is measured so"))

const startOurs = async ({ address, bootstrap, dataDir, port, refreshMillis }: NodeOptions): Promise<NodeUnderTest> => {
  const scope = await Effect.runPromise(Scope.make())
  const layer = Libp2p.layer({
    host: Option.some(address),
    port,
    servicePort: 5000,
    dataDir: Option.map(Option.fromUndefinedOr(dataDir), (dataDir) => join(dataDir, address)),
    ...(refreshMillis === undefined ? {} : { refreshInterval: Duration.millis(refreshMillis) })
  }).pipe(
    Layer.provide(Bootstrap.layer(Result.getOrThrow(Bootstrap.fromStatic(bootstrap.map((peer) => `${peer}:${port}`)))))
  )
  const router = Context.get(await Effect.runPromise(Layer.buildWithScope(Layer.fresh(layer), scope)), Router)
  const { id } = await Effect.runPromise(router.self)
  return {
    id,
    peers: () => Effect.runPromise(Effect.map(router.peers, ({ length }) => length)),
    // A node that has just started provides as soon as it has asked its first peer.
    provide: (keys) =>
      Effect.runPromise(
        Effect.retry(router.advertise(keys.map(ContentKey.make)), {
          schedule: Schedule.spaced("10 millis"),
          times: 1000
        })
      ),
    find: (key) =>
      Effect.runPromise(Effect.map(Stream.runHead(router.lookup(ContentKey.make(key), { count: 3 })), Option.isSome)),
    locate: async (key, holder) => {
      const started = performance.now()
      let foundMillis: number | null = null
      let any = false
      await Effect.runPromise(
        Stream.runForEach(router.lookup(ContentKey.make(key), { count: 20 }), (peer) =>
          Effect.sync(() => {
            any = true
            if (peer.id === holder) foundMillis ??= performance.now() - started
          }))
      )
      return { foundMillis, any, totalMillis: performance.now() - started }
    },
    withdraw: (keys) => Effect.runPromise(router.withdraw(keys.map(ContentKey.make))),
    stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

const startStock = async ({ address, bootstrap, port }: NodeOptions): Promise<NodeUnderTest> => {
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
  const [first = ""] = bootstrap
  for (let tries = address === first ? 50 : 0; host.getPeers().length === 0 && tries < 50; tries++) {
    await host.dial(multiaddr(`/ip4/${first}/tcp/${port}`)).catch(() =>
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
    locate: notMeasured,
    withdraw: notMeasured,
    stop: () => Promise.resolve(host.stop())
  }
}

export const start = (options: NodeOptions): Promise<NodeUnderTest> =>
  (options.implementation === "stock" ? startStock : startOurs)(options)
