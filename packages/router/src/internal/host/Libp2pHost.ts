/** The libp2p host: TCP, noise or TLS, yamux, with limits on connections, streams and dials. */
import { yamux } from "@chainsafe/libp2p-yamux"
import { identify } from "@libp2p/identify"
import type { ConnectionGater, Libp2p as Host } from "@libp2p/interface"
import { ping } from "@libp2p/ping"
import type { Multiaddr } from "@multiformats/multiaddr"
import { Data, Effect, Option } from "effect"
import { createLibp2p } from "libp2p"
import { networkInterfaces } from "node:os"
import { Identity } from "../../Identity.ts"
import * as PeerAddress from "../../PeerAddress.ts"
import { IdentityConflicts } from "./IdentityConflicts.ts"
import { tls } from "./OnDemandTls.ts"
import { silentLogger } from "./SilentLogger.ts"
import { tcp } from "./WholeWrites.ts"

/** The address cannot be listened on. The router does not start. */
export class RouterListenFailed extends Data.TaggedError("RouterListenFailed")<{
  readonly address: string
  readonly reason: string
}> {
  override get message() {
    return `the router cannot listen on ${this.address}: ${this.reason}`
  }
}

const listenAddresses = (host: Option.Option<string>): ReadonlyArray<string> => {
  if (Option.isSome(host)) return [host.value]
  const hasIpv6 = Object.values(networkInterfaces()).flat().some((address) => address?.family === "IPv6")
  return hasIpv6 ? ["0.0.0.0", "::"] : ["0.0.0.0"]
}

/** The software that this node says it runs. */
export const agent = "spegel-ts"

/** Streams of one connection; this node needs two each way. */
const maxStreams = 32
/** Connections that are held open. In a larger network, others are opened on demand. */
export const heldConnections = 128
/** Concurrent dials. A list of bootstrap peers may be long and mostly dead, and other dials must not wait behind it. */
const maxDials = 320
const maxWaitingDials = 2000

/** A connection without traffic is closed after this many milliseconds, and its peer is probed. */
const inactivity = 15 * 60_000

/**
 * A host, its detector of identity conflicts, and an effect that makes it listen until the scope closes. Handlers of protocols
 * are registered before that: a peer that asks which protocols this node speaks gets one whole answer.
 */
export const make = Effect.fnUntraced(function*(options: {
  readonly host: Option.Option<string>
  readonly port: number
  /** Whether loopback addresses are announced. */
  readonly loopback: boolean
  readonly gater: ConnectionGater
  /** Whether each peer is asked who it is when it connects. What it proves with a cluster key says more, and costs less. */
  readonly identify: boolean
}) {
  const { gater, loopback } = options
  const { id, privateKey } = yield* Identity
  const conflicts = yield* IdentityConflicts.make({
    self: id,
    dialAgain: (id, address) =>
      Effect.tryPromise((signal) =>
        host.dial(address.encapsulate(`/p2p/${id}`), { signal, force: true }).then((connection) => connection.close())
      ).pipe(Effect.timeout("5 seconds"))
  })
  const addresses = listenAddresses(options.host).map((ip) => PeerAddress.ofSocket(ip, options.port))
  const listenFailed = (cause: unknown) => {
    const text = String(cause instanceof AggregateError ? [cause, ...cause.errors].map(String).join(" ") : cause)
    return new RouterListenFailed({
      address: `${Option.getOrElse(options.host, () => "")}:${options.port}`,
      reason: /EADDRINUSE/.test(text) || /already in use/i.test(text)
        ? "the port is in use; choose another"
        : text
    })
  }
  const host: Host = yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: () =>
        createLibp2p({
          start: false,
          privateKey,
          nodeInfo: { userAgent: agent },
          logger: silentLogger,
          addresses: {
            listen: addresses.map(String),
            announceFilter: (found) => found.filter((address) => PeerAddress.isUsableAddress(address, { loopback }))
          },
          transports: [
            tcp({ inboundSocketInactivityTimeout: inactivity, outboundSocketInactivityTimeout: inactivity })
          ],
          connectionEncrypters: [conflicts.encrypter, tls()],
          streamMuxers: [
            // The DHT pings the members that it monitors.
            yamux({ maxInboundStreams: maxStreams, maxOutboundStreams: maxStreams, enableKeepAlive: false })
          ],
          connectionGater: gater,
          connectionMonitor: { enabled: false },
          connectionManager: {
            maxConnections: 2 * heldConnections,
            inboundConnectionThreshold: 200,
            inboundUpgradeTimeout: 3000,
            maxIncomingPendingConnections: 128,
            maxParallelDials: maxDials,
            maxDialQueueLength: maxWaitingDials
          },
          services: {
            identify: identify({ runOnConnectionOpen: options.identify }),
            ping: ping()
          }
        }),
      catch: listenFailed
    }),
    // `stop` waits for streams, which a peer can hold open.
    (host) => Effect.promise(() => Promise.resolve(host.stop())).pipe(Effect.timeoutOption("2 seconds"))
  )
  const listen = Effect.tryPromise({ try: () => Promise.resolve(host.start()), catch: listenFailed })
  return { host, conflicts, listen }
})

/** Returns a test for this node's own addresses, announced or not. */
export const isOwnAddress = (host: Host, listen: { readonly host: Option.Option<string>; readonly port: number }) => {
  const ownIps = Option.match(listen.host, {
    onNone: () => Object.values(networkInterfaces()).flatMap((found) => found ?? []).map(({ address }) => address),
    onSome: (ip) => [ip]
  })
  const listened = new Set(ownIps.map((ip) => PeerAddress.ofSocket(ip, listen.port).toString()))
  return (address: Multiaddr): boolean => {
    const plain = PeerAddress.withoutId(address).toString()
    return listened.has(plain) ||
      host.getMultiaddrs().some((own) => PeerAddress.withoutId(own).toString() === plain)
  }
}
