/**
 * `Router` over libp2p: TCP, noise or TLS, yamux, and a Kademlia DHT under `/spegel/kad/1.0.0`, so that Go Spegel's
 * nodes and ours are one network.
 */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { identify } from "@libp2p/identify"
import type { IdentifyResult, Libp2p as Host, PeerInfo } from "@libp2p/interface"
import { kadDHT, passthroughMapper } from "@libp2p/kad-dht"
import { ping } from "@libp2p/ping"
import { tcp } from "@libp2p/tcp"
import { tls } from "@libp2p/tls"
import { type Multiaddr, multiaddr } from "@multiformats/multiaddr"
import { Data, Duration, Effect, Layer, Option, Queue, Schedule, type Scope, Stream } from "effect"
import { createLibp2p } from "libp2p"
import { CID } from "multiformats/cid"
import { create as createMultihash } from "multiformats/hashes/digest"
import { createHash } from "node:crypto"
import { networkInterfaces } from "node:os"
import { Bootstrap } from "./Bootstrap.ts"
import type { ContentKey } from "./ContentKey.ts"
import * as Identity from "./Identity.ts"
import type { Peer, PeerFacts } from "./Peer.ts"
import * as PeerAddress from "./PeerAddress.ts"
import { Router, RouterNotReady } from "./Router.ts"
import { resolved } from "./RouterMetrics.ts"

/** The address cannot be listened on. */
export class RouterListenFailed extends Data.TaggedError("RouterListenFailed")<{
  readonly address: string
  readonly reason: string
}> {
  override get message() {
    return `the router cannot listen on ${this.address}: ${this.reason}`
  }
}

export interface Libp2pOptions {
  /** IP to listen on; none means all of them. */
  readonly host: Option.Option<string>
  readonly port: number
  /** Directory of the identity; none keeps it in memory. */
  readonly dataDir: Option.Option<string>
  /** Port of this node's registry; its peers are taken to use the same. */
  readonly registryPort: number
  /** How often records are handed out again. Default 9 minutes: they live for 10. */
  readonly refreshInterval?: Duration.Duration
}

/** A bootstrap address did not lead to a peer. */
class DialFailed extends Data.TaggedError("DialFailed")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

const multihashSha256 = 0x12
const codecRaw = 0x55
const provideConcurrency = 8
const dialTimeout = Duration.seconds(5)
const rebootstrapInterval = Duration.minutes(30)

/** CIDv1(raw, sha2-256 of the key's text): what Go Spegel looks for. */
export const cidOf = (key: ContentKey): CID =>
  CID.createV1(codecRaw, createMultihash(multihashSha256, createHash("sha256").update(key).digest()))

const listenAddresses = (host: Option.Option<string>): ReadonlyArray<string> => {
  if (Option.isSome(host)) return [host.value]
  const hasIpv6 = Object.values(networkInterfaces()).flat().some((address) => address?.family === "IPv6")
  return hasIpv6 ? ["0.0.0.0", "::"] : ["0.0.0.0"]
}

const makeHost = Effect.fnUntraced(function*(options: Libp2pOptions, loopback: boolean) {
  const privateKey = yield* Identity.load(options.dataDir)
  const addresses = listenAddresses(options.host).map((ip) => PeerAddress.ofSocket(ip, options.port))
  const listenFailed = (cause: unknown) => {
    const text = String(cause instanceof AggregateError ? [cause, ...cause.errors].map(String).join(" ") : cause)
    return new RouterListenFailed({
      address: `${Option.getOrElse(options.host, () => "")}:${options.port}`,
      reason: /EADDRINUSE/.test(text) || /already in use/i.test(text)
        ? "the port is in use; choose another with --router-addr"
        : text
    })
  }
  return yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: () =>
        createLibp2p({
          privateKey,
          nodeInfo: { userAgent: "spegel-ts" },
          addresses: {
            listen: addresses.map(String),
            announceFilter: (found) =>
              found.filter((address) =>
                Option.exists(PeerAddress.ipOf(address), (ip) => PeerAddress.isUsable(ip, { loopback }))
              )
          },
          transports: [tcp()],
          connectionEncrypters: [noise(), tls()],
          streamMuxers: [yamux()],
          connectionMonitor: { enabled: false },
          connectionManager: {
            maxConnections: 300,
            inboundConnectionThreshold: 100,
            maxIncomingPendingConnections: 50
          },
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
        }),
      catch: listenFailed
    }),
    // Stopping waits for streams, which a peer can hold open.
    (host) => Effect.promise(() => Promise.resolve(host.stop())).pipe(Effect.timeoutOption("2 seconds"))
  )
})

/** Dials what the bootstrap sources give, now and whenever nobody is left; `joined` is called after each round. */
const bootstrapForever = (host: Host, bootstrap: typeof Bootstrap.Service, joined: () => void) => {
  const isSelf = (address: Multiaddr) => {
    const own = host.getMultiaddrs().map((own) => own.decapsulate("/p2p").toString())
    return address.toString().includes(host.peerId.toString()) || own.includes(address.toString())
  }
  const dial = (text: string) =>
    Effect.try(() => multiaddr(text)).pipe(
      Effect.flatMap((address) =>
        isSelf(address) ? Effect.void : Effect.tryPromise({
          try: (signal) => host.dial(address, { signal }),
          catch: (cause) => new DialFailed({ reason: String(cause) })
        })
      ),
      Effect.timeout(dialTimeout),
      Effect.catch((error) => Effect.logDebug(`bootstrap: ${text} did not answer: ${error.message}`))
    )
  const round = bootstrap.addresses.pipe(
    Effect.flatMap(Effect.forEach(dial, { concurrency: 8, discard: true })),
    Effect.catch((error) => Effect.logWarning(error.message)),
    Effect.andThen(Effect.sync(joined))
  )
  const untilConnected = round.pipe(Effect.repeat({
    schedule: Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("30 seconds")]).pipe(Schedule.jittered),
    until: () => host.getPeers().length > 0
  }))
  const untilAlone = Effect.sync(() => host.getPeers().length).pipe(
    Effect.repeat({ schedule: Schedule.spaced("5 seconds"), until: (peers) => peers === 0 }),
    Effect.timeoutOption(rebootstrapInterval)
  )
  return Effect.forever(Effect.andThen(untilConnected, untilAlone))
}

/** A member of the cluster's network, listening while its scope is open. */
export const layer = (
  options: Libp2pOptions
): Layer.Layer<Router, RouterListenFailed | Identity.IdentityUnusable, Bootstrap> =>
  Layer.effect(
    Router,
    Effect.gen(function*() {
      const bootstrap = yield* Bootstrap
      const loopback = Option.exists(options.host, PeerAddress.isLoopback)
      const host = yield* makeHost(options, loopback)
      const { dht } = host.services
      const own = new Set<ContentKey>()
      const agents = new Map<string, string>()
      let joined = false

      const toPeer = (info: PeerInfo): Option.Option<Peer> => {
        const addresses = info.multiaddrs.flatMap((address) => {
          const ip = PeerAddress.ipOf(address)
          return Option.isSome(ip) && PeerAddress.isUsable(ip.value, { loopback }) ? [ip.value] : []
        })
        return addresses.length === 0 || info.id.equals(host.peerId)
          ? Option.none()
          : Option.some({
            id: info.id.toString(),
            addresses: [...new Set(addresses)],
            registryPort: options.registryPort
          })
      }

      const provide = (keys: Iterable<ContentKey>) =>
        Effect.forEach(keys, (key) =>
          Effect.tryPromise(async (signal) => {
            for await (const _event of dht.provide(cidOf(key), { signal })) {
              if (signal.aborted) return
            }
          }).pipe(Effect.catch((error) => Effect.logDebug(`providing ${key} failed`, error))), {
          concurrency: provideConcurrency,
          discard: true
        })

      const whenReady = <A>(effect: Effect.Effect<A>): Effect.Effect<A, RouterNotReady> =>
        Effect.suspend(() =>
          joined ? effect : Effect.fail(new RouterNotReady({ reason: "no bootstrap peer was asked yet" }))
        )

      // A record is kept by whoever was known when it was provided: newcomers get theirs here.
      yield* Stream.callback<void>((queue) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            const onIdentify = ({ detail }: CustomEvent<IdentifyResult>) => {
              agents.set(detail.peerId.toString(), detail.agentVersion ?? "unknown")
              Queue.offerUnsafe(queue, undefined)
            }
            host.addEventListener("peer:identify", onIdentify)
            return onIdentify
          }),
          (onIdentify) => Effect.sync(() => host.removeEventListener("peer:identify", onIdentify))
        ), { bufferSize: 1, strategy: "sliding" }).pipe(
          Stream.debounce("500 millis"),
          Stream.runForEach(() => provide([...own])),
          Effect.forkScoped
        )
      yield* provide([...own]).pipe(
        Effect.delay(options.refreshInterval ?? Duration.minutes(9)),
        Effect.forever,
        Effect.forkScoped
      )
      yield* Effect.forkScoped(bootstrapForever(host, bootstrap, () => {
        joined = true
      }))

      const lookup = (key: ContentKey) =>
        Stream.unwrap(Effect.gen(function*() {
          const controller = yield* abortController
          return Stream.fromAsyncIterable(
            dht.findProviders(cidOf(key), { signal: controller.signal }),
            (cause) => new RouterNotReady({ reason: String(cause) })
          )
        })).pipe(
          Stream.map((event) =>
            event.name === "PROVIDER" ? event.providers.flatMap((info) => Option.toArray(toPeer(info))) : []
          ),
          Stream.flattenIterable,
          // A query that fails has found nobody more.
          Stream.catch(() => Stream.empty)
        )

      const factsOf = (id: ReturnType<Host["getPeers"]>[number]): ReadonlyArray<PeerFacts> => {
        const connections = host.getConnections(id)
        const peer = toPeer({ id, multiaddrs: connections.map(({ remoteAddr }) => remoteAddr) })
        const agent = agents.get(id.toString())
        return Option.isNone(peer) ? [] : [{ ...peer.value, ...(agent === undefined ? {} : { agent }) }]
      }

      return Router.of({
        advertise: Effect.fn("Libp2p.advertise")((keys) => {
          for (const key of keys) own.add(key)
          return whenReady(provide(keys))
        }),
        withdraw: Effect.fn("Libp2p.withdraw")((keys) =>
          Effect.forEach(keys, (key) => {
            own.delete(key)
            return Effect.promise(() => dht.cancelReprovide(cidOf(key)).catch(() => undefined))
          }, { discard: true })
        ),
        lookup: (key, { count }) =>
          Stream.unwrap(whenReady(Effect.sync(() => distinct(resolved(lookup(key))).pipe(Stream.take(count))))),
        ready: Effect.sync(() => joined),
        peers: Effect.sync(() => host.getPeers().flatMap(factsOf)),
        self: Effect.sync(() => ({
          id: host.peerId.toString(),
          addresses: host.getMultiaddrs().flatMap((address) => Option.toArray(PeerAddress.ipOf(address))),
          registryPort: options.registryPort
        }))
      })
    })
  )

/** Aborted when the scope closes. */
const abortController: Effect.Effect<AbortController, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => new AbortController()),
  (controller) => Effect.sync(() => controller.abort())
)

const distinct = <E>(peers: Stream.Stream<Peer, E>): Stream.Stream<Peer, E> =>
  Stream.suspend(() => {
    const seen = new Set<string>()
    return Stream.filter(peers, ({ id }) => !seen.has(id) && Boolean(seen.add(id)))
  })
