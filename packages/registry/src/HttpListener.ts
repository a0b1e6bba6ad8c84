/**
 * An HTTP server with the limits that a mirror needs: it keeps connections for longer than containerd does, bounds what
 * clients can send, and lets running answers finish when it stops.
 */
import * as Background from "@spegel-ts/background/Background"
import * as DistributionError from "@spegel-ts/oci/DistributionError"
import { Data, Duration, Effect, FiberSet, Option, type Scope } from "effect"
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from "node:http"
import type { AddressInfo, Socket } from "node:net"
import { ConnectionPlaces, type PlaceLimits } from "./internal/listen/ConnectionPlaces.ts"
import * as RequestHead from "./internal/listen/RequestHead.ts"
import * as TurnedAway from "./internal/listen/TurnedAway.ts"
import { withinTurn } from "./internal/listen/TurnScheduler.ts"

/** The address cannot be listened on. */
export class ListenFailed extends Data.TaggedError("ListenFailed")<{
  readonly address: string
  readonly reason: string
}> {
  override get message() {
    return `cannot listen on ${this.address}: ${this.reason}`
  }
}

/**
 * Answers one request: ends `response`, or destroys it. The effect is interrupted when the client goes away. Undefined means
 * that the answer is given within this turn of the event loop.
 */
export type Handler = (request: IncomingMessage, response: ServerResponse) => Effect.Effect<void> | undefined

/** The certificate and key of a server over TLS, in PEM. With `ca`, clients need a certificate of that authority. */
export interface ListenTls {
  readonly cert: Buffer
  readonly key: Buffer
  readonly ca: Buffer | undefined
}

/** The address to listen on, the handler of requests, and the limits on clients. */
export interface ListenOptions {
  /** The IP to listen on; none for all of them. */
  readonly host: Option.Option<string>
  /** The TCP port; 0 takes a free one. */
  readonly port: number
  readonly handler: Handler
  /** How long running requests may continue when the scope closes. */
  readonly grace: Duration.Duration
  /** How long a client may take none of the bytes that wait for it. By default 2 minutes. */
  readonly clientTimeout?: Duration.Duration
  /** Serves over TLS. */
  readonly tls?: ListenTls | undefined
  /** The bounds of connections. By default 4096, of which 256 from one address. */
  readonly connections?: PlaceLimits
  /**
   * Returns the error for a request on a connection beyond the bounds, or undefined to answer it nevertheless, as for a
   * probe. By default 503.
   */
  readonly whenCrowded?: (request: IncomingMessage) => DistributionError.DistributionError | undefined
}

const defaultConnections: PlaceLimits = { all: 4096, ofAddress: 256 }
/** Below it a write costs no "drain" event. It is more than any chunk of a body, with the head before it. In bytes. */
const highWaterMark = 1024 * 1024
/** containerd keeps idle connections for 30 s: closing them earlier would race with its next request. */
const keepAliveTimeout = 65_000
/** A busy disk may keep containerd from reading for a while. */
export const clientTimeout: Duration.Duration = Duration.minutes(2)

const reasonOf = (error: NodeJS.ErrnoException): string => {
  switch (error.code) {
    case "EADDRINUSE":
      return "the port is in use; stop its owner or choose another"
    case "EACCES":
      return "not permitted; ports below 1024 need the NET_BIND_SERVICE capability"
    case "EADDRNOTAVAIL":
      return "this host does not have the address"
    default:
      return error.message
  }
}

const notATarget = DistributionError.nameInvalid("the request's target is neither a path nor an absolute URL")
const crowded = () => DistributionError.unavailable("this node holds as many connections as it may; ask another")

type Listener = (request: IncomingMessage, response: ServerResponse) => void

/** Checks each request, and hands it to the handler once the answers before it on its connection are out. */
const listenerOf = (
  { handler, whenCrowded = crowded }: ListenOptions,
  places: ConnectionPlaces,
  run: (effect: Effect.Effect<void>) => { readonly interruptUnsafe: () => void }
): Listener =>
(request, response) => {
  const { "content-length": length, "transfer-encoding": coding } = request.headers
  // No request here has a use for a body: it is discarded as it arrives.
  if (length !== undefined || coding !== undefined) request.resume()
  const place = places.get(request.socket)
  if (place !== undefined) places.asked(place, response)
  const begin = () => {
    const broken = RequestHead.refusal(request)
    if (broken !== undefined) return TurnedAway.turnAway(response, broken)
    const target = RequestHead.originForm(request.url ?? "")
    if (target === undefined) return TurnedAway.turnAway(response, notATarget)
    request.url = target
    if (place?.surplus === true) {
      const refusal = whenCrowded(request)
      if (refusal !== undefined) return TurnedAway.turnAway(response, refusal)
      response.setHeader("connection", "close")
    }
    const answering = handler(request, response)
    if (answering === undefined) return
    const fiber = run(answering)
    response.once("close", () => {
      if (!response.writableFinished) fiber.interruptUnsafe()
    })
  }
  if (response.socket !== null) return begin()
  // A pipelined request waits for the socket until the answer before it is out, since bodies are written to the socket.
  if (place !== undefined && !places.wait(place)) return request.socket.destroy()
  response.once("socket", () => {
    if (place !== undefined) places.goOn(place)
    begin()
  })
}

/** TLS takes memory: it is loaded only if it is used. */
const serverOf = (tls: ListenTls | undefined, options: ServerOptions, listener: Listener): Effect.Effect<Server> =>
  tls === undefined
    ? Effect.sync(() => createServer(options, listener))
    : Effect.promise(async () => {
      const https = await import("node:https")
      return https.createServer({ ...options, ...tls, requestCert: tls.ca !== undefined }, listener)
    })

/** Waits until the answers that this turn gives without a fiber (`TurnAnswers`) are sent. */
const turnEnd = Effect.callback<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

/**
 * Listens while the scope is open, and returns the port. Closing the scope waits up to `grace` for running requests, then
 * closes their connections. Fails with `ListenFailed` if the address is taken or not permitted.
 */
export const listen = Effect.fn("HttpListener.listen")(
  function*(options: ListenOptions): Effect.fn.Return<{ readonly port: number }, ListenFailed, Scope.Scope> {
    const { grace, host, port } = options
    // Made before the server, and so ended after it: the server stops taking requests, then they end.
    const requests = yield* FiberSet.make<void>()
    const run = yield* FiberSet.runtime(requests)()
    const places = new ConnectionPlaces(options.connections ?? defaultConnections)

    const server = yield* serverOf(
      options.tls,
      {
        keepAliveTimeout,
        headersTimeout: 10_000,
        requestTimeout: 0,
        highWaterMark,
        maxHeaderSize: TurnedAway.maxHeaderSize,
        noDelay: true,
        requireHostHeader: false
      },
      listenerOf(options, places, (answering) => run(answering, { scheduler: withinTurn }))
    )
    server.on("connection", (socket) => places.enter(socket))
    // Bytes that the kernel accepts count as progress; bytes that wait in this process do not.
    server.timeout = Duration.toMillis(options.clientTimeout ?? clientTimeout)
    server.on("clientError", (error, socket) => {
      TurnedAway.brokenRequest(error, socket as Socket, places.get(socket as Socket))
    })
    server.on("connect", TurnedAway.tunnel)

    const address = `${Option.getOrElse(host, () => "")}:${port}`
    // A server that cannot accept a connection, for example because no descriptor is left, continues to listen.
    const report = yield* Background.reporter("listener")
    server.on("error", (error) => {
      if (server.listening) report(new ListenFailed({ address, reason: reasonOf(error) }))
    })
    yield* Effect.acquireRelease(
      Effect.callback<void, ListenFailed>((resume) => {
        server.once("error", (error) => resume(Effect.fail(new ListenFailed({ address, reason: reasonOf(error) }))))
        server.listen({ port, ...(Option.isSome(host) ? { host: host.value } : {}) }, () => resume(Effect.void))
      }),
      () =>
        Effect.gen(function*() {
          const closed = Effect.callback<void>((resume) => {
            server.close(() => resume(Effect.void))
          })
          server.closeIdleConnections()
          yield* Effect.raceFirst(closed, FiberSet.awaitEmpty(requests)).pipe(Effect.timeoutOption(grace))
          yield* turnEnd
          server.closeAllConnections()
        })
    )
    return { port: (server.address() as AddressInfo).port }
  }
)
