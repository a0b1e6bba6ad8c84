/**
 * Bytes from a peer, over raw sockets with reused read buffers: no allocation and no stream machinery per chunk.
 * A response is handed over when its first body byte is here, and reading stops while nobody takes bytes. Connections
 * are kept for the next request.
 */
import type { HttpRequest } from "@spegel-ts/oci/DistributionRequest"
import { Context, Duration, Effect, Exit, Layer, Result, type Scope } from "effect"
import { isIPv6 } from "node:net"
import type { Client, TransferError } from "./Body.ts"
import { BodyInterrupted } from "./BodyInterrupted.ts"
import * as ConnectionPool from "./internal/peer/ConnectionPool.ts"
import { type ByteSink, Exchange, type ExchangeError } from "./internal/peer/Exchange.ts"
import type { PeerConnection } from "./internal/peer/PeerConnection.ts"
import type { ResponseHead } from "./internal/peer/ResponseHead.ts"
import { PeerDisconnected, PeerSlow, PeerStalled, PeerUnreachable } from "./PeerError.ts"
import { Progress } from "./Progress.ts"
import * as SourceWatch from "./SourceWatch.ts"
import { Transfer } from "./Transfer.ts"

export type TransportError = ExchangeError | PeerSlow | PeerStalled | PeerUnreachable

/** Judges a speed in bytes per second: what others give, where that is reason to leave the peer. */
export type Comparison = (bytesPerSecond: number) => number | undefined

/** What is asked of a peer's speed once its body flows and the client waits for it. */
interface SpeedLimits {
  /** Longest silence. */
  readonly stallMillis: number
  /** Least speed over `crawlWindowMillis`; 0 for any. */
  readonly minBytesPerSecond: number
  readonly crawlWindowMillis: number
}

export interface PeerResponse extends ResponseHead {
  /** Which of the peer's addresses answered. */
  readonly address: string
  /** This node's end of the connection. */
  readonly localPort?: number | undefined
  /** Hands the body to `sink`, to the last byte or the first failure; `compare` judges its speed. Once only. */
  readonly relay: (sink: ByteSink, compare?: Comparison) => Effect.Effect<void, TransportError>
  /** As `relay`, to a client, the fastest way that there is. */
  readonly move: (
    to: { readonly client: Client; readonly progress: Progress },
    compare?: Comparison
  ) => Effect.Effect<void, TransportError | BodyInterrupted>
}

export interface PeerRequest extends HttpRequest, ConnectionPool.Target {
  /** Longest silence in the body, in milliseconds, where that is less than other peers may be silent. */
  readonly patienceMillis?: number | undefined
}

export class PeerTransport extends Context.Service<PeerTransport, {
  /**
   * Sends a request and waits for the head and the first body byte; a response that was not read to its end when the
   * scope closes costs its connection. Time limits for this are the caller's; once bytes flow and are waited for, a
   * silence or a crawl fails the relay.
   */
  readonly request: (request: PeerRequest) => Effect.Effect<PeerResponse, TransportError, Scope.Scope>
  /** Connections open now, and those of them that no request uses. */
  readonly connections: Effect.Effect<{ readonly open: number; readonly idle: number }>
}>()("@spegel-ts/registry/PeerTransport") {}

export interface TransportOptions extends Partial<ConnectionPool.PoolLimits> {
  /** Longest silence of a peer while its bytes are waited for. */
  readonly stallTimeout: Duration.Duration
  /** Least speed in bytes per second, over 3 s in which bytes are waited for; 0 for any. */
  readonly minPeerSpeed: number
}

const crawlWindowMillis = 3000
/** Milliseconds of waiting after which a speed is compared with that of others. */
const comparisonMillis = 1000
/** Speed of a peer that is given little time is looked at after so many times its longest silence. */
const crawlPatience = 4

const printHead = ({ addresses, headers, method, port, url }: PeerRequest): string => {
  const [address = ""] = addresses
  const fields = Object.entries(headers).map(([name, value]) => `${name}: ${String(value)}\r\n`)
  return `${method} ${url} HTTP/1.1\r\nhost: ${isIPv6(address) ? `[${address}]` : address}:${port}\r\n${
    fields.join("")
  }\r\n`
}

/** Fails where a peer keeps its client waiting. */
const watch = (peer: string, progress: Progress, limits: SpeedLimits, compare: Comparison | undefined) => {
  const { crawlWindowMillis, minBytesPerSecond, stallMillis } = limits
  const slow = (speed: number, waitedMillis: number) => ({ peer, bytesPerSecond: Math.round(speed), waitedMillis })
  return SourceWatch.watch<PeerSlow | PeerStalled>(progress, {
    stallMillis,
    stalled: () => new PeerStalled({ peer, waitedMillis: stallMillis }),
    paces: [
      {
        windowMillis: crawlWindowMillis,
        judge: (speed) => speed < minBytesPerSecond ? new PeerSlow(slow(speed, crawlWindowMillis)) : undefined
      },
      {
        windowMillis: comparisonMillis,
        judge: (speed) => {
          const othersBytesPerSecond = compare?.(speed)
          return othersBytesPerSecond === undefined
            ? undefined
            : new PeerSlow({ ...slow(speed, comparisonMillis), othersBytesPerSecond })
        }
      }
    ]
  })
}

/** A mover that dies is a failure of the peer: another, or the same once more, goes on at the byte reached. */
const failureOf = (peer: string) => (error: TransferError) => {
  switch (error._tag) {
    case "ClientGone":
    case "TransferAborted":
      return new BodyInterrupted({ reason: error.message })
    case "SourceEnded":
      return new PeerDisconnected({ peer, reason: `closed the connection ${error.missing} bytes early` })
    case "TransferFailed":
      return new PeerDisconnected({ peer, reason: error.message })
  }
}

/** A request on its way: on a connection that rests or on a new one. */
class Call {
  readonly #pool: ConnectionPool.ConnectionPool
  readonly #transfer: Transfer["Service"]
  readonly #request: PeerRequest
  readonly #peer: string
  readonly #limits: SpeedLimits
  #exchange: Exchange | undefined
  #stopDialling = () => {}
  #over = false

  constructor(
    pool: ConnectionPool.ConnectionPool,
    transfer: Transfer["Service"],
    request: PeerRequest,
    limits: SpeedLimits
  ) {
    this.#pool = pool
    this.#transfer = transfer
    this.#request = request
    this.#peer = `${request.addresses[0] ?? ""}:${request.port}`
    const { patienceMillis = Infinity } = request
    this.#limits = {
      ...limits,
      stallMillis: Math.min(limits.stallMillis, patienceMillis),
      crawlWindowMillis: Math.min(limits.crawlWindowMillis, crawlPatience * patienceMillis)
    }
  }

  start(onAnswer: (answer: Result.Result<PeerResponse, TransportError>) => void): void {
    const resting = this.#pool.take(this.#request)
    if (resting === undefined) return this.#dial(onAnswer)
    this.#send(resting, (answer) => {
      // Closed by the peer while the request was on its way, as any idle connection may be.
      const stale = Result.isFailure(answer) && answer.failure._tag === "PeerDisconnected" &&
        this.#exchange?.started === false
      if (stale && !this.#over) this.#dial(onAnswer)
      else onAnswer(answer)
    })
  }

  abandon(): void {
    this.#over = true
    this.#stopDialling()
    this.#exchange?.abandon()
  }

  #dial(onAnswer: (answer: Result.Result<PeerResponse, TransportError>) => void): void {
    this.#stopDialling = this.#pool.dial(
      this.#request,
      (connection) => this.#send(connection, onAnswer),
      (reason) => onAnswer(Result.fail(new PeerUnreachable({ peer: this.#peer, reason })))
    )
  }

  #send(connection: PeerConnection, onAnswer: (answer: Result.Result<PeerResponse, TransportError>) => void): void {
    const exchange: Exchange = new Exchange(
      { peer: this.#peer, bodiless: this.#request.method === "HEAD" },
      {
        resume: () => connection.resume(),
        done: (reusable) => reusable ? this.#pool.give(this.#request, connection) : connection.drop(),
        destroy: () => connection.drop()
      },
      (head) =>
        onAnswer(Result.map(head, (head): PeerResponse => ({
          ...head,
          address: connection.address,
          localPort: connection.localPort,
          relay: (sink, compare) => this.#relay(exchange, sink, compare),
          move: (to, compare) => this.#move(exchange, connection, { ...to, length: head.contentLength }, compare)
        })))
    )
    this.#exchange = exchange
    connection.send(exchange, printHead(this.#request))
  }

  #relay(exchange: Exchange, sink: ByteSink, compare?: Comparison): Effect.Effect<void, TransportError> {
    return Effect.suspend(() => {
      const progress = exchange.complete ? undefined : new Progress()
      const relaying = Effect.callback<void, TransportError>((resume) => {
        exchange.relay(
          sink,
          (failure) => resume(failure === undefined ? Effect.void : Effect.fail(failure)),
          progress
        )
        // Nothing is read into the sink's memory after this.
        return Effect.sync(() => exchange.abandon())
      })
      return progress === undefined
        ? relaying
        : Effect.raceFirst(relaying, watch(this.#peer, progress, this.#limits, compare))
    })
  }

  #move(
    exchange: Exchange,
    connection: PeerConnection,
    to: { readonly client: Client; readonly progress: Progress; readonly length: number },
    compare?: Comparison
  ): Effect.Effect<void, TransportError | BodyInterrupted> {
    return Effect.suspend((): Effect.Effect<void, TransportError | BodyInterrupted> => {
      const early = exchange.lend()
      if (Result.isFailure(early)) return Effect.fail(early.failure)
      const source = { _tag: "Peer" as const, peer: connection.socket, early: early.success }
      return Effect.raceFirst(
        Effect.mapError(this.#transfer.move({ ...to, source }), failureOf(this.#peer)),
        watch(this.#peer, to.progress, this.#limits, compare)
      ).pipe(
        Effect.onExit((exit) =>
          Effect.sync(() =>
            exchange.returned(
              Exit.isSuccess(exit)
                ? exit.value.source === "quiet" ? "quiet" : "loud"
                : new PeerDisconnected({ peer: this.#peer, reason: "was left" })
            )
          )
        ),
        Effect.asVoid
      )
    })
  }
}

/** Raw sockets. Closing the layer closes all of them. */
export const layer = (options: TransportOptions): Layer.Layer<PeerTransport, never, Transfer> =>
  Layer.effect(
    PeerTransport,
    Effect.gen(function*() {
      const transfer = yield* Transfer
      const pool = yield* Effect.acquireRelease(
        Effect.sync(() => new ConnectionPool.ConnectionPool({ ...ConnectionPool.defaultLimits, ...options })),
        (pool) => Effect.sync(() => pool.close())
      )
      const limits: SpeedLimits = {
        stallMillis: Duration.toMillis(options.stallTimeout),
        minBytesPerSecond: options.minPeerSpeed,
        crawlWindowMillis
      }
      return PeerTransport.of({
        request: Effect.fnUntraced(function*(request) {
          // The connection outlives the wait for its head, and is let go of with the caller's scope.
          const call = yield* Effect.acquireRelease(
            Effect.sync(() => new Call(pool, transfer, request, limits)),
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
