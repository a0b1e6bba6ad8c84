/**
 * An HTTP server with the limits that a mirror needs: it outlives containerd's idle connections, bounds what a client
 * can send, and lets running answers finish when it stops.
 */
import * as Background from "@spegel-ts/background/Background"
import * as DistributionError from "@spegel-ts/oci/DistributionError"
import { mirroredHeader } from "@spegel-ts/oci/DistributionRequest"
import { Data, Duration, Effect, FiberSet, Option, type Scope } from "effect"
import * as Scheduler from "effect/Scheduler"
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from "node:http"
import type { AddressInfo, Socket } from "node:net"
import type { Duplex } from "node:stream"
import { ConnectionPlaces, type Place, type PlaceLimits, rests } from "./internal/listen/ConnectionPlaces.ts"
import * as RequestHead from "./internal/listen/RequestHead.ts"

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
 * Answers one request by ending `response`, or by destroying it. Interrupted when the client goes away; undefined where
 * that is done within this turn of the event loop.
 */
export type Handler = (request: IncomingMessage, response: ServerResponse) => Effect.Effect<void> | undefined

/** Certificate and key of a server over TLS, in PEM. With `ca`, only clients that it has certified are heard. */
export interface ListenTls {
  readonly cert: Buffer
  readonly key: Buffer
  readonly ca: Buffer | undefined
}

export interface ListenOptions {
  /** IP to listen on; none means all of them. */
  readonly host: Option.Option<string>
  /** 0 takes a free one. */
  readonly port: number
  readonly handler: Handler
  /** How long running requests may go on when the scope closes. */
  readonly grace: Duration.Duration
  /** How long a client may take none of the bytes that wait for it; 2 minutes where not given. */
  readonly clientTimeout?: Duration.Duration
  /** Serves over TLS. */
  readonly tls?: ListenTls | undefined
  /** How many connections are held; 4096, and 256 of one address, where not given. */
  readonly connections?: PlaceLimits
  /** Requests that are answered even where there are as many connections as may be; none where not given. */
  readonly isProbe?: (request: IncomingMessage) => boolean
}

const maxHeaderSize = 16 * 1024
const defaultConnections: PlaceLimits = { all: 4096, ofAddress: 256 }
/** A write of less costs no event that says there is room again: more than any chunk of a body, with the head before it. */
const highWaterMark = 1024 * 1024
/** containerd keeps idle connections for 30 s; closing earlier would race with its next request. */
const keepAliveTimeout = 65_000
/** A disk under load may keep containerd from reading for a while. */
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

/** An answer that is the connection's last. */
const turnAway = (response: ServerResponse, error: DistributionError.DistributionError): void => {
  const body = error.body()
  response.writeHead(error.status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    connection: "close"
  }).end(body)
}

/** An answer to what never became a request; `status` with its reason phrase. */
const answerRaw = (socket: Duplex, status: string, error: DistributionError.DistributionError, fields = ""): void => {
  const body = error.body()
  socket.end(
    `HTTP/1.1 ${status}\r\n${fields}content-type: application/json\r\ncontent-length: ${
      Buffer.byteLength(body)
    }\r\nconnection: close\r\n\r\n${body}`
  )
}

/** Requests that the parser refuses never reach the handler; they are told why all the same. */
const answerBrokenRequest = (error: NodeJS.ErrnoException, socket: Socket, place: Place | undefined) => {
  if (!socket.writable || error.code === "ECONNRESET" || error.code === "ERR_HTTP_REQUEST_TIMEOUT") {
    return socket.destroy()
  }
  // An answer to the request before it, or to its own head, is out or on its way: bytes of another would be taken for its own.
  if (place?.response !== undefined && !(rests(place) && place.response.req.complete)) return socket.destroySoon()
  return error.code === "HPE_HEADER_OVERFLOW"
    ? answerRaw(
      socket,
      "431 Request Header Fields Too Large",
      DistributionError.nameInvalid(`the request's headers are larger than ${maxHeaderSize} bytes`)
    )
    : answerRaw(socket, "400 Bad Request", DistributionError.nameInvalid("the request is not valid HTTP/1.1"))
}

/** A `CONNECT` asks for a tunnel. */
const refuseTunnel = (_request: IncomingMessage, socket: Duplex): void =>
  answerRaw(socket, "405 Method Not Allowed", DistributionError.unsupported("this is no proxy"), "allow: GET, HEAD\r\n")

const notATarget = DistributionError.nameInvalid("the request's target is neither a path nor an absolute URL")

/** Tells a client beyond the bound of connections where to go: peers to another, containerd to upstream. */
const crowded = ({ headers, url = "" }: IncomingMessage) => {
  const byContainerd = url.startsWith("/v2/") && headers[mirroredHeader] === undefined
  const tell = byContainerd ? DistributionError.nameUnknown : DistributionError.unavailable
  return tell("spegel-ts: this node holds as many connections as it may; ask another")
}

const settled = Promise.resolve()

/**
 * Goes on with a request within the same turn of the event loop: while large bodies move, a turn takes milliseconds, and
 * a request has many steps.
 */
const withinTurn = new Scheduler.MixedScheduler("async", (task) => {
  let called = true
  // `queueMicrotask` makes an `AsyncResource` of each: a tenth of a small request's CPU.
  void settled.then(() => {
    if (called) task()
  })
  return () => {
    called = false
  }
})

/** Answers that no fiber gives are out by then. */
const turnEnd = Effect.callback<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

type Listener = (request: IncomingMessage, response: ServerResponse) => void

/** TLS takes memory: it is loaded only where it is used. */
const serverOf = (tls: ListenTls | undefined, options: ServerOptions, listener: Listener): Effect.Effect<Server> =>
  tls === undefined
    ? Effect.sync(() => createServer(options, listener))
    : Effect.promise(async () => {
      const https = await import("node:https")
      return https.createServer({ ...options, ...tls, requestCert: tls.ca !== undefined }, listener)
    })

/** Listens while the scope is open; gives the port. Closing waits `grace` for running requests, then cuts them off. */
export const listen = Effect.fn("HttpListener.listen")(
  function*(options: ListenOptions): Effect.fn.Return<{ readonly port: number }, ListenFailed, Scope.Scope> {
    const { grace, handler, host, port } = options
    // The order of these two is that of their ends, reversed: the server stops taking requests, then they end.
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
        maxHeaderSize,
        noDelay: true,
        requireHostHeader: false
      },
      (request, response) => {
        const { "content-length": length, "transfer-encoding": coding } = request.headers
        // Nothing here has a use for a request's body: it is dropped as it comes, not kept.
        if (length !== undefined || coding !== undefined) request.resume()
        const place = places.get(request.socket)
        if (place !== undefined) places.asked(place, response)
        const begin = () => {
          const broken = RequestHead.refusal(request)
          if (broken !== undefined) return turnAway(response, broken)
          const target = RequestHead.originForm(request.url ?? "")
          if (target === undefined) return turnAway(response, notATarget)
          request.url = target
          if (place?.surplus === true) {
            if (options.isProbe?.(request) !== true) return turnAway(response, crowded(request))
            response.setHeader("connection", "close")
          }
          const answering = handler(request, response)
          if (answering === undefined) return
          const fiber = run(answering, { scheduler: withinTurn })
          response.once("close", () => {
            if (!response.writableFinished) fiber.interruptUnsafe()
          })
        }
        if (response.socket !== null) return begin()
        // A request that came before the answer to the one in front waits for the socket: bodies are written to it.
        if (place !== undefined && !places.wait(place)) return request.socket.destroy()
        response.once("socket", () => {
          if (place !== undefined) places.goOn(place)
          begin()
        })
      }
    )
    server.on("connection", (socket) => places.enter(socket))
    // Bytes that the kernel takes count as movement, not those that wait for it.
    server.timeout = Duration.toMillis(options.clientTimeout ?? clientTimeout)
    server.on("clientError", (error, socket) => {
      answerBrokenRequest(error, socket as Socket, places.get(socket as Socket))
    })
    server.on("connect", refuseTunnel)

    const address = `${Option.getOrElse(host, () => "")}:${port}`
    // It goes on listening where it could not accept a connection, for instance since there are no descriptors left.
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
