/** One request and its response on a connection; driven by what the connection reads. */
import { Result } from "effect"
import { PeerDisconnected, PeerRefused } from "../../PeerError.ts"
import type { ByteSink } from "../../PeerTransport.ts"
import type { Progress } from "../../Progress.ts"
import * as ResponseHead from "./ResponseHead.ts"

export type ExchangeError = PeerDisconnected | PeerRefused

/** The connection, as an exchange uses it. */
export interface Wire {
  /** Continues to read. */
  readonly resume: () => void
  /** The response was read to its last byte. The connection is free for another exchange if `reusable`. */
  readonly done: (reusable: boolean) => void
  /** The response, and so the connection, cannot be used any more. The exchange needs no more events. */
  readonly destroy: () => void
}

type OnHead = (result: Result.Result<ResponseHead.ResponseHead, ExchangeError>) => void
type OnEnd = (failure: ExchangeError | undefined) => void

/** A copy of what was read into the memory that all connections share. */
const copyOf = (chunk: Buffer): Buffer => {
  const copy = Buffer.allocUnsafeSlow(chunk.length)
  chunk.copy(copy)
  return copy
}

export class Exchange {
  /** Whether any byte of the response has come. */
  started = false
  readonly #peer: string
  readonly #bodiless: boolean
  readonly #wire: Wire
  readonly #onHead: OnHead
  #onEnd: OnEnd = () => {}
  #head: ResponseHead.ResponseHead | undefined
  #headBytes: Buffer = Buffer.alloc(0)
  /** Whether the response was handed over: that happens when the first byte of its body is here. */
  #answered = false
  #reusable = true
  /** Body bytes still to be read from the connection. */
  #unread = 0
  /** Body bytes still to be given to the sink. */
  #remaining = 0
  /** The memory that the connection reads the next bytes into. */
  #space: Buffer | undefined
  /** Body bytes that arrived before anyone asked for them. */
  #early: Buffer | undefined
  #sink: ByteSink | undefined
  #progress: Progress | undefined
  /** Whether the sink wants the next bytes now: it may have come, and taken all, during the read that it waited for. */
  #flowing = false
  #ended = false
  #failure: ExchangeError | undefined

  constructor(
    options: { readonly peer: string; readonly bodiless: boolean },
    wire: Wire,
    onHead: OnHead
  ) {
    this.#peer = options.peer
    this.#bodiless = options.bodiless
    this.#wire = wire
    this.#onHead = onHead
  }

  /** The memory for the connection's next read; undefined for the buffer that all connections share. */
  nextBuffer(): Buffer | undefined {
    this.#space = this.#unread > 0 ? this.#sink?.space?.() : undefined
    return this.#space
  }

  /** Whether all of the body is here. */
  get complete(): boolean {
    return this.#head !== undefined && this.#unread === 0
  }

  /** Hands the body to `sink`, and counts it in `progress`. Once only. */
  relay(sink: ByteSink, onEnd: OnEnd, progress?: Progress): void {
    this.#sink = sink
    this.#progress = progress
    this.#onEnd = onEnd
    if (this.#ended) return onEnd(this.#failure)
    const early = this.#early
    this.#early = undefined
    if (early !== undefined) {
      if (this.#deliver(early)) this.#readOn()
    } else if (this.#remaining === 0) this.#end(undefined)
    else this.#readOn()
  }

  /**
   * Lends the body: returns its first bytes, and leaves it to the caller to read the others from the connection until it
   * calls `returned`. Once only, and instead of `relay`.
   */
  lend(): Result.Result<Buffer, ExchangeError> {
    if (this.#failure !== undefined) return Result.fail(this.#failure)
    const early = this.#early ?? Buffer.alloc(0)
    this.#early = undefined
    return Result.succeed(early)
  }

  /** The lent body was read to its end, after which the connection was `quiet` or not; or it failed. */
  returned(outcome: "quiet" | "loud" | ExchangeError): void {
    if (this.complete) return this.#end(undefined)
    if (typeof outcome !== "string") return this.#fail(outcome)
    this.#unread = this.#remaining = 0
    this.#wire.done(this.#reusable && outcome === "quiet")
    this.#end(undefined)
  }

  /** Takes what was read. Returns whether to continue reading. */
  onBytes(chunk: Buffer): boolean {
    this.started = true
    if (this.#head === undefined) return this.#onHeadBytes(chunk)
    const bytes = this.#take(this.#space === undefined ? copyOf(chunk) : chunk)
    if (this.#sink !== undefined) return this.#deliver(bytes)
    this.#handOver(bytes)
    return this.#flowing
  }

  onClosed(reason: string | undefined): void {
    const missing = this.#head === undefined ? "before it answered" : `${this.#unread} bytes early`
    this.#fail(new PeerDisconnected({ peer: this.#peer, reason: reason ?? `closed the connection ${missing}` }))
  }

  /** Nobody wants the rest. A sink that still takes bytes gets a failure. */
  abandon(): void {
    const unread = this.#head === undefined || this.#unread > 0
    const incomplete = unread || this.#remaining > 0
    this.#end(incomplete ? new PeerDisconnected({ peer: this.#peer, reason: "was left" }) : undefined)
    if (unread) this.#wire.destroy()
  }

  #onHeadBytes(chunk: Buffer): boolean {
    const bytes = this.#headBytes.length === 0 ? chunk : Buffer.concat([this.#headBytes, chunk])
    const end = ResponseHead.headEnd(bytes)
    if (end === -1) {
      if (bytes.length > ResponseHead.maxHeadSize) {
        return this.#refuse(`head longer than ${ResponseHead.maxHeadSize} bytes`)
      }
      this.#headBytes = copyOf(bytes)
      return true
    }
    const head = ResponseHead.parse(bytes.subarray(0, end))
    if (Result.isFailure(head)) return this.#refuse(head.failure.message)
    this.#head = head.success
    this.#reusable = !/(?:^|,)[ \t]*close[ \t]*(?:,|$)/i.test(head.success.headers.get("connection") ?? "")
    this.#remaining = this.#bodiless ? 0 : head.success.contentLength
    this.#unread = this.#remaining
    const first = bytes.subarray(end)
    if (first.length === 0 && this.#unread > 0) return true
    this.#handOver(this.#take(copyOf(first)))
    return this.#flowing
  }

  /** Counts a chunk of the body as read. Bytes beyond its length are dropped, and with them the connection. */
  #take(chunk: Buffer): Buffer {
    const excess = chunk.length > this.#unread
    if (excess) this.#reusable = false
    const bytes = excess ? chunk.subarray(0, this.#unread) : chunk
    this.#unread -= bytes.length
    if (this.#unread === 0) this.#wire.done(this.#reusable)
    return bytes
  }

  /** Hands the response over with its first body bytes, which wait for a sink. */
  #handOver(bytes: Buffer): void {
    if (bytes.length > 0) this.#early = bytes
    this.#answered = true
    if (this.#head !== undefined) this.#onHead(Result.succeed(this.#head))
  }

  #deliver(chunk: Buffer): boolean {
    this.#progress?.take(chunk.length)
    this.#remaining -= chunk.length
    this.#flowing = false
    let returned = false
    const taken = this.#sink?.write(chunk, () => {
      if (returned && this.#delivered()) this.#readOn()
    }) ?? false
    returned = true
    return taken && this.#delivered()
  }

  /** The sink has the chunk. Returns whether there is more to read for it. */
  #delivered(): boolean {
    if (this.#ended) return false
    if (this.#remaining === 0) this.#end(undefined)
    else this.#progress?.waits()
    return !this.#ended
  }

  #readOn(): void {
    this.#flowing = !this.#ended
    if (!this.#flowing) return
    this.#progress?.waits()
    this.#wire.resume()
  }

  #refuse(reason: string): false {
    this.#fail(new PeerRefused({ peer: this.#peer, reason }))
    return false
  }

  #fail(error: ExchangeError): void {
    if (this.#ended) return
    this.#wire.destroy()
    this.#end(error)
    if (!this.#answered) this.#onHead(Result.fail(error))
  }

  #end(failure: ExchangeError | undefined): void {
    if (this.#ended) return
    this.#ended = true
    this.#failure = failure
    this.#early = undefined
    this.#progress?.waitsNoMore()
    this.#onEnd(failure)
  }
}
