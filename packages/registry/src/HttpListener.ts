/**
 * An HTTP server with the limits that a mirror needs: it outlives containerd's idle connections, bounds what a client
 * can send, and lets running answers finish when it stops.
 */
import * as Background from "@spegel-ts/background/Background"
import * as DistributionError from "@spegel-ts/oci/DistributionError"
import { Data, Duration, Effect, FiberSet, Option, type Scope } from "effect"
import * as Scheduler from "effect/Scheduler"
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from "node:http"
import type { AddressInfo, Socket } from "node:net"
import { largeSize } from "./BufferPool.ts"

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
}

const maxHeaderSize = 16 * 1024
const maxConnections = 4096
/** A write of less costs no event that says there is room again: more than any chunk of a body, with the head before it. */
const highWaterMark = 2 * largeSize
/** containerd keeps idle connections for 30 s; closing earlier would race with its next request. */
const keepAliveTimeout = 65_000
/** A disk under load may keep containerd from reading for a while. */
const clientTimeout = Duration.minutes(2)

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

/** Requests that the parser refuses never reach the handler; they are told why all the same. */
const answerBrokenRequest = (error: NodeJS.ErrnoException, socket: Socket) => {
  if (!socket.writable || error.code === "ECONNRESET") return socket.destroy()
  const tooLarge = error.code === "HPE_HEADER_OVERFLOW"
  const body = DistributionError.nameInvalid(
    tooLarge ? `the request's headers are larger than ${maxHeaderSize} bytes` : "the request is not valid HTTP/1.1"
  ).body()
  const status = tooLarge ? "431 Request Header Fields Too Large" : "400 Bad Request"
  socket.end(
    `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${
      Buffer.byteLength(body)
    }\r\nconnection: close\r\n\r\n${body}`
  )
}

/**
 * Goes on with a request within the same turn of the event loop: while large bodies move, a turn takes milliseconds, and
 * a request has many steps.
 */
const withinTurn = new Scheduler.MixedScheduler("async", (task) => {
  let called = true
  queueMicrotask(() => {
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
        // RFC 9112, section 3.2. Node would answer it without a body.
        if (request.headers.host === undefined && request.httpVersion === "1.1") {
          const body = DistributionError.nameInvalid("the request has no Host header").body()
          response.writeHead(400, {
            "content-type": "application/json",
            "content-length": Buffer.byteLength(body),
            connection: "close"
          }).end(body)
          return
        }
        const begin = () => {
          const answering = handler(request, response)
          if (answering === undefined) return
          const fiber = run(answering, { scheduler: withinTurn })
          response.once("close", () => {
            if (!response.writableFinished) fiber.interruptUnsafe()
          })
        }
        // A request that came before the answer to the one in front waits for the socket: bodies are written to it.
        if (response.socket === null) response.once("socket", begin)
        else begin()
      }
    )
    server.maxConnections = maxConnections
    // Bytes that the kernel takes count as movement, not those that wait for it.
    server.timeout = Duration.toMillis(options.clientTimeout ?? clientTimeout)
    server.on("clientError", (error, socket) => {
      answerBrokenRequest(error, socket as Socket)
    })

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
