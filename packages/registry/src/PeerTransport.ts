/**
 * Bytes from a peer, over a raw socket with one reused read buffer: no allocation and no stream machinery per chunk.
 * A response is handed over when its first body byte is here, and reading stops while nobody takes bytes.
 */
import type { HttpRequest } from "@spegel-ts/oci/DistributionRequest"
import { Context, Duration, Effect, Layer, Result, type Scope } from "effect"
import { connect, isIPv6, type Socket } from "node:net"
import { PeerRefused, PeerStalled, PeerUnreachable } from "./MirrorError.ts"
import * as ResponseHead from "./ResponseHead.ts"

/** Where bytes go. */
export interface ByteSink {
  /**
   * Takes a view of a buffer that is reused. True: the bytes were taken. False: they will be, and `resume` is called
   * then; no other chunk comes before.
   */
  readonly write: (chunk: Buffer, resume: () => void) => boolean
}

export type TransportError = PeerRefused | PeerStalled | PeerUnreachable

export interface PeerResponse extends ResponseHead.ResponseHead {
  /** Hands the body to `sink`, to the last byte or the first failure. Once only. */
  readonly relay: (sink: ByteSink) => Effect.Effect<void, TransportError>
}

export interface PeerRequest extends HttpRequest {
  /** IP literal. */
  readonly address: string
  readonly port: number
}

export class PeerTransport extends Context.Service<PeerTransport, {
  /**
   * Sends a request and waits for the head and the first body byte. The connection lives as long as the scope.
   * Time limits for this are the caller's; once bytes flow, a silence of `stallTimeout` fails the relay.
   */
  readonly request: (request: PeerRequest) => Effect.Effect<PeerResponse, TransportError, Scope.Scope>
}>()("@spegel-ts/registry/PeerTransport") {}

/** Large reads cost least per byte, and one stream has one buffer. */
const bufferSize = 512 * 1024

const printHead = ({ address, headers, method, port, url }: PeerRequest): string => {
  const host = isIPv6(address) ? `[${address}]` : address
  const fields = Object.entries(headers).map(([name, value]) => `${name}: ${String(value)}\r\n`)
  return `${method} ${url} HTTP/1.1\r\nhost: ${host}:${port}\r\nconnection: close\r\n${fields.join("")}\r\n`
}

/** One exchange on one socket, moved by the socket's events. */
class Exchange {
  readonly socket: Socket
  readonly #peer: string
  readonly #bodiless: boolean
  readonly #stallMillis: number
  #head: ResponseHead.ResponseHead | undefined
  #headBytes = Buffer.alloc(0)
  /** Body bytes that arrived before anyone asked for them. */
  #early: Buffer | undefined
  #remaining = 0
  #sink: ByteSink | undefined
  #paused = false
  #failure: TransportError | undefined
  #onHead: (result: Result.Result<ResponseHead.ResponseHead, TransportError>) => void
  #onEnd: (failure: TransportError | undefined) => void = () => {}

  constructor(
    request: PeerRequest,
    stallMillis: number,
    onHead: (result: Result.Result<ResponseHead.ResponseHead, TransportError>) => void
  ) {
    this.#peer = `${request.address}:${request.port}`
    this.#bodiless = request.method === "HEAD"
    this.#stallMillis = stallMillis
    this.#onHead = onHead
    this.socket = connect({
      host: request.address,
      port: request.port,
      noDelay: true,
      onread: { buffer: Buffer.allocUnsafeSlow(bufferSize), callback: (size, bytes) => this.#onRead(bytes, size) }
    })
    this.socket.on("error", (error) => this.#fail(new PeerUnreachable({ peer: this.#peer, reason: error.message })))
    this.socket.on("end", () => this.#closed())
    this.socket.on("close", () => this.#closed())
    this.socket.on("timeout", () => {
      if (this.#paused) return
      this.#fail(new PeerStalled({ peer: this.#peer, waitedMillis: this.#stallMillis }))
    })
    this.socket.write(printHead(request))
  }

  relay(sink: ByteSink, onEnd: (failure: TransportError | undefined) => void): void {
    this.#sink = sink
    this.#onEnd = onEnd
    if (this.#failure !== undefined) return onEnd(this.#failure)
    this.socket.setTimeout(this.#stallMillis)
    const early = this.#early
    this.#early = undefined
    if (early === undefined || this.#deliver(early)) this.#resume()
  }

  #onRead(buffer: Uint8Array, size: number): boolean {
    const chunk = Buffer.from(buffer.buffer, buffer.byteOffset, size)
    if (this.#head === undefined) return this.#onHeadBytes(chunk)
    if (this.#sink === undefined) return this.#hold(chunk)
    return this.#deliver(chunk)
  }

  #onHeadBytes(chunk: Buffer): boolean {
    const bytes = this.#headBytes.length === 0 ? chunk : Buffer.concat([this.#headBytes, chunk])
    const end = ResponseHead.headEnd(bytes)
    if (end === -1) {
      if (bytes.length > ResponseHead.maxHeadSize) {
        return this.#refuse(`head longer than ${ResponseHead.maxHeadSize} bytes`)
      }
      // The read buffer is reused for what comes next.
      this.#headBytes = Buffer.from(bytes)
      return true
    }
    const head = ResponseHead.parse(bytes.subarray(0, end))
    if (Result.isFailure(head)) return this.#refuse(head.failure.message)
    this.#head = head.success
    this.#remaining = this.#bodiless ? 0 : head.success.contentLength
    if (this.#remaining === 0) {
      this.#onHead(Result.succeed(head.success))
      return false
    }
    return end === bytes.length || this.#hold(bytes.subarray(end))
  }

  /** The first body bytes: the response is worth handing over, and waits for its reader. */
  #hold(chunk: Buffer): boolean {
    this.#early = chunk
    this.#paused = true
    if (this.#head !== undefined) this.#onHead(Result.succeed(this.#head))
    return false
  }

  #deliver(chunk: Buffer): boolean {
    // Bytes beyond the announced length belong to nobody.
    const bytes = chunk.length > this.#remaining ? chunk.subarray(0, this.#remaining) : chunk
    this.#remaining -= bytes.length
    let taken = false
    const resume = () => {
      // Called within `write` already, there is nothing to resume.
      if (taken) this.#resume()
    }
    const sync = this.#sink?.write(bytes, resume) ?? false
    taken = true
    if (sync && this.#remaining === 0) {
      this.#end(undefined)
      return false
    }
    this.#paused = !sync
    return sync
  }

  #resume(): void {
    this.#paused = false
    if (this.#remaining === 0) return this.#end(undefined)
    this.socket.setTimeout(this.#stallMillis)
    this.socket.resume()
  }

  #refuse(reason: string): false {
    this.#fail(new PeerRefused({ peer: this.#peer, reason }))
    return false
  }

  #closed(): void {
    if (this.#remaining === 0 && this.#head !== undefined) return
    // What is held was not asked for yet: the reader gets it, and then this failure.
    const missing = this.#head === undefined ? "before it answered" : `${this.#remaining} bytes early`
    this.#fail(new PeerUnreachable({ peer: this.#peer, reason: `closed the connection ${missing}` }))
  }

  #fail(error: TransportError): void {
    this.#end(error)
    if (this.#head === undefined) this.#onHead(Result.fail(error))
  }

  #end(failure: TransportError | undefined): void {
    if (this.#failure !== undefined) return
    this.#failure = failure
    this.socket.setTimeout(0)
    this.#onEnd(failure)
  }
}

/** Raw sockets. */
export const layer = (options: { readonly stallTimeout: Duration.Duration }): Layer.Layer<PeerTransport> =>
  Layer.succeed(PeerTransport, {
    request: Effect.fnUntraced(function*(request: PeerRequest) {
      // The socket outlives the wait for its head, and closes with the caller's scope.
      const opened = yield* Effect.acquireRelease(
        Effect.sync(() => ({ socket: undefined as Socket | undefined })),
        ({ socket }) => Effect.sync(() => socket?.destroy())
      )
      const { exchange, head } = yield* Effect.callback<
        { readonly exchange: Exchange; readonly head: ResponseHead.ResponseHead },
        TransportError
      >((resume) => {
        const exchange: Exchange = new Exchange(
          request,
          Duration.toMillis(options.stallTimeout),
          (result) => resume(Effect.map(Effect.fromResult(result), (head) => ({ exchange, head })))
        )
        opened.socket = exchange.socket
      })
      return {
        ...head,
        relay: (sink: ByteSink) =>
          Effect.callback<void, TransportError>((resume) =>
            exchange.relay(sink, (failure) => resume(failure === undefined ? Effect.void : Effect.fail(failure)))
          )
      }
    })
  })
