/**
 * An HTTP/1.1 client for peers, over raw sockets with reused read buffers: no allocation and no stream machinery per
 * chunk. docs/decisions/0009-peer-http-client.md has the figures that justify it.
 *
 * A response is returned when its first body byte has arrived, and nothing more is read until somebody takes the body.
 * Connections are kept for the next request. It reads responses with a Content-Length only: no chunked bodies, no
 * compression, no redirects, no TLS.
 */
import type { HttpRequest } from "@spegel-ts/oci/DistributionRequest"
import { Context, type Duration, Effect, Layer, type Scope, type Stream } from "effect"
import type { Client } from "./Body.ts"
import type { BodyInterrupted } from "./BodyInterrupted.ts"
import * as ConnectionPool from "./internal/peer/ConnectionPool.ts"
import { PeerCall } from "./internal/peer/PeerCall.ts"
import type { ResponseHead } from "./internal/peer/ResponseHead.ts"
import * as SpeedLimits from "./internal/peer/SpeedLimits.ts"
import type { PeerDisconnected, PeerRefused, PeerSlow, PeerStalled, PeerUnreachable } from "./PeerError.ts"
import type { Progress } from "./Progress.ts"
import { Transfer } from "./Transfer.ts"

/** How a request, or the reading of its body, fails. Another peer can be asked after each of them. */
export type TransportError = PeerDisconnected | PeerRefused | PeerSlow | PeerStalled | PeerUnreachable

/** Judges a speed in bytes per second: returns the speed of other peers if that is reason to leave this one. */
export type Comparison = (bytesPerSecond: number) => number | undefined

/** How a body's speed is judged. */
export interface Judgement {
  /** Judges the peer's speed beside the limits of the transport. */
  readonly compare?: Comparison | undefined
  /**
   * For a peer that may be silent for as long as its own source is, and whom the caller watches: the limit of silence does not count, and
   * the lowest speed only while this is false.
   */
  readonly isExcused?: (() => boolean) | undefined
}

/** Takes the bytes of a body, without a `Stream`: the cheapest way to have them in this process. */
export interface ByteSink {
  /**
   * The memory to read the next bytes into: asked for after each chunk, and written to once that chunk was taken. A sink
   * without it gets small chunks in memory of their own.
   */
  readonly space?: () => Buffer
  /**
   * Takes a chunk, which lies in `space` if the sink has one. True: the next one may come. False: the next one comes
   * after `resume` was called, and not before.
   */
  readonly write: (chunk: Buffer, resume: () => void) => boolean
}

/**
 * A peer's response. Its body is taken once, by one of `body`, `relay` and `move`. All of them fail
 * with `PeerStalled` or `PeerSlow` if the peer keeps the reader waiting, and with `PeerDisconnected` if it ends early. A
 * reader that is slow itself never makes them fail.
 */
export interface PeerResponse extends ResponseHead {
  /** The peer's address that answered. */
  readonly address: string
  /** The port of this node's end of the connection. */
  readonly localPort?: number | undefined
  /**
   * The body in chunks of at most 256 KiB, none of which is overwritten later. One chunk is read ahead. It costs about
   * 1.5 times the CPU of `relay`.
   */
  readonly body: Stream.Stream<Uint8Array, TransportError>
  /** Hands the body to `sink`, up to its last byte or the first failure. */
  readonly relay: (sink: ByteSink, judgement?: Judgement) => Effect.Effect<void, TransportError>
  /**
   * Moves the body to a client by `Transfer`, within the kernel where that is possible. `progress` goes on counting when
   * the same client got bytes of another peer before. Fails with `BodyInterrupted` if the client leaves.
   */
  readonly move: (
    to: { readonly client: Client; readonly progress: Progress },
    judgement?: Judgement
  ) => Effect.Effect<void, TransportError | BodyInterrupted>
}

/** A request, and the peer to send it to. */
export interface PeerRequest extends HttpRequest, ConnectionPool.Target {
  /** The longest silence in the body, in milliseconds, for a peer that is given less than `stallTimeout`. */
  readonly patienceMillis?: number | undefined
}

/** The limits on peers and on idle connections. A peer that breaks one fails its request: another peer can be asked. */
export interface TransportOptions extends Partial<ConnectionPool.PoolLimits> {
  /** How long a peer may send nothing while its bytes are waited for. Then the body fails with `PeerStalled`. */
  readonly stallTimeout: Duration.Duration
  /**
   * The lowest speed in bytes per second, measured over 3 s in which bytes were waited for; 0 allows any. A slower peer's body
   * fails with `PeerSlow`.
   */
  readonly minPeerSpeed: number
}

/** Sends requests to peers. */
export class PeerTransport extends Context.Service<PeerTransport, {
  /**
   * Sends a request and waits for the head and the first body byte. The caller limits the time for this. The connection
   * is used again if the body was read to its end when the scope closes; otherwise it is closed.
   *
   * Fails with `PeerUnreachable` if no address accepts a connection, `PeerDisconnected` if the connection breaks, and
   * `PeerRefused` if the response is not HTTP as a registry speaks it. A status of 4xx or 5xx is a response, not a failure.
   */
  readonly request: (request: PeerRequest) => Effect.Effect<PeerResponse, TransportError, Scope.Scope>
  /** The number of open connections, and of those that no request uses. */
  readonly connections: Effect.Effect<{ readonly open: number; readonly idle: number }>
}>()("@spegel-ts/transfer/PeerTransport") {
  /** Raw sockets. Closing the layer closes all of them. */
  static readonly layer = (options: TransportOptions): Layer.Layer<PeerTransport, never, Transfer> =>
    Layer.effect(
      PeerTransport,
      Effect.gen(function*() {
        const transfer = yield* Transfer
        const pool = yield* Effect.acquireRelease(
          Effect.sync(() => new ConnectionPool.ConnectionPool({ ...ConnectionPool.defaultLimits, ...options })),
          (pool) => Effect.sync(() => pool.close())
        )
        const limits = SpeedLimits.make(options)
        return PeerTransport.of({
          request: Effect.fnUntraced(function*(request) {
            // The connection outlives the wait for its head: it is released with the caller's scope.
            const call = yield* Effect.acquireRelease(
              Effect.sync(() => new PeerCall(pool, transfer, request, limits)),
              (call) => Effect.sync(() => call.abandon())
            )
            return yield* Effect.callback<PeerResponse, TransportError>((resume) => {
              call.start((answer) => resume(Effect.fromResult(answer)))
            })
          }),
          connections: Effect.sync(() => pool.size)
        })
      })
    )
}
