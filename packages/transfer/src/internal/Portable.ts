/**
 * Moves bodies in plain JavaScript: each stream reads into one buffer and writes from there. It reads the next bytes once the
 * kernel has the last ones.
 */
import { Effect } from "effect"
import { setTimeout as sleep } from "node:timers/promises"
import { type Body, type Moved, type Source, SourceEnded, type TransferError, TransferFailed } from "../Body.ts"
import type { ClientSink } from "../ClientSink.ts"
import type { PeerSocket, Reader } from "../PeerSocket.ts"
import type { Progress } from "../Progress.ts"
import * as Buffers from "./Buffers.ts"
import { growthMillis } from "./Growth.ts"

/** The rest of a body. */
export interface Rest extends Body {
  readonly sink: ClientSink
  /** Bytes of `length` that were moved before. */
  readonly moved: number
}

/** The bytes that a body may move in one turn of the event loop, before others have theirs. */
const turnBytes = 3 * 512 * 1024

const asError = (cause: unknown): TransferError =>
  cause instanceof SourceEnded ? cause : new TransferFailed({ reason: String(cause) })

/** Moves the rest of a body. When it is interrupted it ends once nothing of the source is in use any more. */
export const move = (rest: Rest): Effect.Effect<Moved, TransferError> =>
  rest.source._tag === "Peer" ? relay(rest, rest.source.peer) : copy(rest, rest.source)

type FileSource = Exclude<Source, { readonly _tag: "Peer" }>

const readFile = async (
  { _tag, handle }: FileSource,
  buffer: Buffer,
  position: number,
  left: number,
  signal: AbortSignal
): Promise<Buffer> => {
  for (;;) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, left), position).catch(
      (error: NodeJS.ErrnoException) => {
        throw new SourceEnded({
          reason: `the file cannot be read (${error.code ?? error.message}): it ended`,
          missing: left
        })
      }
    )
    if (bytesRead > 0 || signal.aborted) return buffer.subarray(0, bytesRead)
    if (_tag === "File") throw new SourceEnded({ reason: "the file ended", missing: left })
    // Listening to the signal would cost more each time than waiting for this short sleep.
    await sleep(growthMillis)
  }
}

/** The first bytes of a file, at most this many. */
export const firstOf = (source: FileSource, most: number, progress: Progress): Effect.Effect<Buffer, TransferError> =>
  settling(async (signal) => {
    if (most === 0) return Buffer.alloc(0)
    progress.waits()
    const bytes = await readFile(source, Buffer.allocUnsafeSlow(most), source.offset, most, signal)
    progress.take(bytes.length)
    return bytes
  })

/** A promise as an effect. Its interruption aborts the signal and waits until the promise has ended. */
const settling = <A>(run: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, TransferError> =>
  Effect.callback((resume) => {
    const controller = new AbortController()
    const settled = run(controller.signal).then(
      (value) => resume(Effect.succeed(value)),
      (cause: unknown) => resume(Effect.fail(asError(cause)))
    )
    return Effect.suspend(() => {
      controller.abort()
      return Effect.promise(() => settled)
    })
  })

const copy = ({ length, moved, progress, sink }: Rest, source: FileSource): Effect.Effect<Moved, TransferError> =>
  settling(async (signal) => {
    signal.addEventListener("abort", () => sink.stop())
    const buffer = Buffers.acquire(length - moved)
    try {
      for (let done = moved; done < length && !signal.aborted;) {
        progress.waits()
        const chunk = await readFile(source, buffer, source.offset + done, length - done, signal)
        progress.take(chunk.length)
        if (signal.aborted || !await sink.send(chunk)) break
        done += chunk.length
      }
      return { source: "quiet" }
    } finally {
      Buffers.release(buffer, !sink.stopped)
    }
  })

const relay = ({ length, moved, progress, sink }: Rest, peer: PeerSocket): Effect.Effect<Moved, TransferError> =>
  Effect.callback((resume) => {
    const relaying = new Relay(peer, sink, progress, length - moved, resume)
    relaying.start()
    return Effect.sync(() => relaying.stop())
  })

/** Passes a peer's bytes on to a client. */
class Relay implements Reader {
  readonly #peer: PeerSocket
  readonly #sink: ClientSink
  readonly #progress: Progress
  readonly #buffer: Buffer
  readonly #end: (exit: Effect.Effect<Moved, TransferError>) => void
  /** The reader that had the connection before, and will have it again. */
  #next: Reader | undefined
  #left: number
  #inTurn = 0
  #excess = false
  #sending = false
  /** Why no more bytes will come; the result once those before are out. */
  #ended: Effect.Effect<Moved, TransferError> | undefined

  constructor(
    peer: PeerSocket,
    sink: ClientSink,
    progress: Progress,
    left: number,
    end: (exit: Effect.Effect<Moved, TransferError>) => void
  ) {
    this.#peer = peer
    this.#sink = sink
    this.#progress = progress
    this.#left = left
    // Room for one byte more than is due shows whether the peer sends more.
    this.#buffer = Buffers.acquire(left + 1)
    this.#end = end
  }

  start(): void {
    if (this.#peer.ended) {
      Buffers.release(this.#buffer, true)
      return this.onEnd(undefined)
    }
    this.#next = this.#peer.use(this)
    this.#readOn()
  }

  stop(): void {
    this.#sink.stop()
    this.#close()
  }

  /** A read after the last byte goes to the next reader: by then this buffer may belong to another stream. */
  space(): Buffer {
    return this.#left === 0 && this.#next !== undefined ? this.#next.space() : this.#buffer.subarray(0, this.#left + 1)
  }

  onBytes(bytes: Buffer): boolean {
    this.#excess = bytes.length > this.#left
    const chunk = this.#excess ? bytes.subarray(0, this.#left) : bytes
    this.#left -= chunk.length
    this.#progress.take(chunk.length)
    this.#sending = true
    const taken = this.#sink.write(chunk, (taken) => {
      if (taken) this.#sent(() => this.#readOn())
    })
    if (!taken) return false
    this.#inTurn += chunk.length
    let more = false
    this.#sent(() => {
      more = this.#inTurn < turnBytes
      if (more) this.#progress.waits()
      else setImmediate(() => this.#readOn())
    })
    return more
  }

  onEnd(reason: string | undefined): void {
    this.#ended = Effect.fail(
      new SourceEnded({
        reason: reason === undefined
          ? "the peer closed the connection"
          : `the connection to the peer broke (${reason})`,
        missing: this.#left
      })
    )
    if (!this.#sending) this.#finish(this.#ended)
  }

  #sent(readOn: () => void): void {
    this.#sending = false
    if (this.#left === 0) this.#finish(Effect.succeed({ source: this.#excess ? "sent more" : "quiet" }))
    else if (this.#ended !== undefined) this.#finish(this.#ended)
    else readOn()
  }

  #readOn(): void {
    if (this.#next === undefined || this.#ended !== undefined) return
    this.#inTurn = 0
    this.#progress.waits()
    this.#peer.resume()
  }

  #finish(exit: Effect.Effect<Moved, TransferError>): void {
    this.#close()
    this.#end(exit)
  }

  #close(): void {
    this.#progress.waitsNoMore()
    if (this.#next === undefined) return
    this.#peer.pause()
    this.#peer.use(this.#next)
    this.#next = undefined
    Buffers.release(this.#buffer, !this.#sink.stopped)
  }
}
