/**
 * One request to a peer, on a connection that was kept or on a new one. A kept connection that the peer closed before it
 * sent a byte of the response is replaced once.
 */
import { Effect, Exit, Result } from "effect"
import { isIPv6 } from "node:net"
import type { Client, TransferError } from "../../Body.ts"
import { BodyInterrupted } from "../../BodyInterrupted.ts"
import { PeerDisconnected, PeerUnreachable } from "../../PeerError.ts"
import type { ByteSink, Judgement, PeerRequest, PeerResponse, TransportError } from "../../PeerTransport.ts"
import { Progress } from "../../Progress.ts"
import type { Transfer } from "../../Transfer.ts"
import * as BodyStream from "./BodyStream.ts"
import type { ConnectionPool } from "./ConnectionPool.ts"
import { Exchange } from "./Exchange.ts"
import type { PeerConnection } from "./PeerConnection.ts"
import type { ResponseHead } from "./ResponseHead.ts"
import * as SpeedLimits from "./SpeedLimits.ts"

type OnAnswer = (answer: Result.Result<PeerResponse, TransportError>) => void

const printHead = ({ addresses, headers, method, port, url }: PeerRequest): string => {
  const [address = ""] = addresses
  const fields = Object.entries(headers).map(([name, value]) => `${name}: ${String(value)}\r\n`)
  return `${method} ${url} HTTP/1.1\r\nhost: ${isIPv6(address) ? `[${address}]` : address}:${port}\r\n${
    fields.join("")
  }\r\n`
}

/** A mover that dies counts as a failure of the peer: the next peer, or the same one, continues at the byte reached. */
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

export class PeerCall {
  readonly #pool: ConnectionPool
  readonly #transfer: Transfer["Service"]
  readonly #request: PeerRequest
  readonly #peer: string
  readonly #limits: SpeedLimits.SpeedLimits
  #exchange: Exchange | undefined
  #stopDialling = () => {}
  #over = false

  constructor(
    pool: ConnectionPool,
    transfer: Transfer["Service"],
    request: PeerRequest,
    limits: SpeedLimits.SpeedLimits
  ) {
    this.#pool = pool
    this.#transfer = transfer
    this.#request = request
    this.#peer = `${request.addresses[0] ?? ""}:${request.port}`
    this.#limits = SpeedLimits.within(limits, request.patienceMillis)
  }

  start(onAnswer: OnAnswer): void {
    const idle = this.#pool.take(this.#request)
    if (idle === undefined) return this.#dial(onAnswer)
    this.#send(idle, (answer) => {
      // The peer closed it while the request was on its way, as may happen to any idle connection.
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

  #dial(onAnswer: OnAnswer): void {
    this.#stopDialling = this.#pool.dial(
      this.#request,
      (connection) => this.#send(connection, onAnswer),
      (reason) => onAnswer(Result.fail(new PeerUnreachable({ peer: this.#peer, reason })))
    )
  }

  #send(connection: PeerConnection, onAnswer: OnAnswer): void {
    const exchange: Exchange = new Exchange(
      { peer: this.#peer, bodiless: this.#request.method === "HEAD" },
      {
        resume: () => connection.resume(),
        done: (reusable) => reusable ? this.#pool.give(this.#request, connection) : connection.drop(),
        destroy: () => connection.drop()
      },
      (head) => onAnswer(Result.map(head, (head) => this.#responseOf(exchange, connection, head)))
    )
    this.#exchange = exchange
    connection.send(exchange, printHead(this.#request))
  }

  #responseOf(exchange: Exchange, connection: PeerConnection, head: ResponseHead): PeerResponse {
    return {
      ...head,
      address: connection.address,
      localPort: connection.localPort,
      body: BodyStream.make(head.contentLength, (sink) => this.#relay(exchange, sink)),
      relay: (sink, judgement) => this.#relay(exchange, sink, judgement),
      move: (to, judgement = {}) => this.#move(exchange, connection, { ...to, length: head.contentLength }, judgement)
    }
  }

  #relay(
    exchange: Exchange,
    sink: ByteSink,
    { compare, isExcused }: Judgement = {}
  ): Effect.Effect<void, TransportError> {
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
        : Effect.raceFirst(
          relaying,
          SpeedLimits.watch(this.#peer, progress, SpeedLimits.excused(this.#limits, isExcused), compare)
        )
    })
  }

  #move(
    exchange: Exchange,
    connection: PeerConnection,
    to: { readonly client: Client; readonly progress: Progress; readonly length: number },
    { compare, isExcused }: Judgement
  ): Effect.Effect<void, TransportError | BodyInterrupted> {
    return Effect.suspend((): Effect.Effect<void, TransportError | BodyInterrupted> => {
      const early = exchange.lend()
      if (Result.isFailure(early)) return Effect.fail(early.failure)
      const source = { _tag: "Peer" as const, peer: connection.socket, early: early.success }
      return Effect.raceFirst(
        Effect.mapError(this.#transfer.move({ ...to, source }), failureOf(this.#peer)),
        SpeedLimits.watch(this.#peer, to.progress, SpeedLimits.excused(this.#limits, isExcused), compare)
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
