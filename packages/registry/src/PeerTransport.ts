/**
 * Bytes from a peer, over raw sockets with reused read buffers: no allocation and no stream machinery per chunk.
 * A response is handed over when its first body byte is here, and reading stops while nobody takes bytes. Connections
 * are kept for the next request.
 */
import type { HttpRequest } from "@spegel-ts/oci/DistributionRequest"
import { Context, Duration, Effect, Layer, Result, type Scope } from "effect"
import { isIPv6 } from "node:net"
import * as ConnectionPool from "./ConnectionPool.ts"
import { type ByteSink, type Comparison, Exchange, type ExchangeError, type SpeedLimits } from "./Exchange.ts"
import { PeerUnreachable } from "./MirrorError.ts"
import type { PeerConnection } from "./PeerConnection.ts"
import type { ResponseHead } from "./ResponseHead.ts"

export type TransportError = ExchangeError | PeerUnreachable

export interface PeerResponse extends ResponseHead {
  /** Which of the peer's addresses answered. */
  readonly address: string
  /** This node's end of the connection. */
  readonly localPort?: number | undefined
  /** Hands the body to `sink`, to the last byte or the first failure; `compare` judges its speed. Once only. */
  readonly relay: (sink: ByteSink, compare?: Comparison) => Effect.Effect<void, TransportError>
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
/** Speed of a peer that is given little time is looked at after so many times its longest silence. */
const crawlPatience = 4

const printHead = ({ addresses, headers, method, port, url }: PeerRequest): string => {
  const [address = ""] = addresses
  const fields = Object.entries(headers).map(([name, value]) => `${name}: ${String(value)}\r\n`)
  return `${method} ${url} HTTP/1.1\r\nhost: ${isIPv6(address) ? `[${address}]` : address}:${port}\r\n${
    fields.join("")
  }\r\n`
}

/** A request on its way: on a connection that rests or on a new one. */
class Call {
  readonly #pool: ConnectionPool.ConnectionPool
  readonly #request: PeerRequest
  readonly #limits: SpeedLimits
  #exchange: Exchange | undefined
  #stopDialling = () => {}
  #over = false

  constructor(pool: ConnectionPool.ConnectionPool, request: PeerRequest, limits: SpeedLimits) {
    this.#pool = pool
    this.#request = request
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
    const [address = ""] = this.#request.addresses
    this.#stopDialling = this.#pool.dial(
      this.#request,
      (connection) => this.#send(connection, onAnswer),
      (reason) => onAnswer(Result.fail(new PeerUnreachable({ peer: `${address}:${this.#request.port}`, reason })))
    )
  }

  #send(connection: PeerConnection, onAnswer: (answer: Result.Result<PeerResponse, TransportError>) => void): void {
    const exchange: Exchange = new Exchange(
      {
        peer: `${this.#request.addresses[0] ?? ""}:${this.#request.port}`,
        bodiless: this.#request.method === "HEAD",
        limits: this.#limits
      },
      {
        resume: (stallMillis) => connection.resume(stallMillis),
        done: (reusable) => reusable ? this.#pool.give(this.#request, connection) : connection.drop(),
        destroy: () => connection.drop()
      },
      (head) =>
        onAnswer(Result.map(head, (head): PeerResponse => ({
          ...head,
          address: connection.address,
          localPort: connection.localPort,
          relay: (sink, compare) =>
            Effect.callback((resume) => {
              exchange.relay(
                sink,
                (failure) => resume(failure === undefined ? Effect.void : Effect.fail(failure)),
                compare
              )
              // Nothing is read into the sink's memory after this.
              return Effect.sync(() => exchange.abandon())
            })
        })))
    )
    this.#exchange = exchange
    connection.send(exchange, printHead(this.#request))
  }
}

/** Raw sockets. Closing the layer closes all of them. */
export const layer = (options: TransportOptions): Layer.Layer<PeerTransport> =>
  Layer.effect(
    PeerTransport,
    Effect.gen(function*() {
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
            Effect.sync(() => new Call(pool, request, limits)),
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
