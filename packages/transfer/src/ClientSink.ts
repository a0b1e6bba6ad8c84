/**
 * Sends bytes to a client through Node: straight to its socket, one chunk at a time. Nothing is queued, so a slow client slows
 * the source.
 */
import { Effect } from "effect"
import type { Client, SendRoom } from "./Body.ts"
import type { Progress } from "./Progress.ts"

/** While there is little room, this many bytes are sent at once. */
export const pieceSize = 64 * 1024

/** `progress` counts what the client's socket has accepted. */
export class ClientSink {
  readonly client: Client
  readonly #progress: Progress
  #begin: (() => void) | undefined
  /** The chunk that Node has, but the kernel has not yet. */
  #pending: { readonly bytes: number; readonly done: (taken: boolean) => void } | undefined
  /** Called if the sink is stopped while a chunk waits for room. */
  #waiting: ((taken: boolean) => void) | undefined

  constructor(client: Client, progress: Progress) {
    this.client = client
    this.#progress = progress
    this.#begin = client.begin
  }

  /** True once `stop` was called. Node may still read the chunk that was given last. */
  stopped = false

  /**
   * Sends a chunk, the first one together with the head. True: the kernel has it. False: `done` is called once the kernel has
   * it, or once `stop` was called. It is never called if the client has gone.
   *
   * Writes go to the socket and not to the response: the response's `write` corks until the next tick, and so never
   * completes at once.
   */
  write(chunk: Buffer, done: (taken: boolean) => void): boolean {
    const { room } = this.client
    if (room === undefined || room.hasRoom(chunk.length)) return this.#write(chunk, done)
    this.#writePieces(chunk, room, done)
    return false
  }

  /** Sends a chunk in pieces, each once there is room for it. */
  #writePieces(chunk: Buffer, room: SendRoom, done: (taken: boolean) => void): void {
    // Between two pieces nobody waits whom `stop` could tell.
    if (this.stopped) return done(false)
    const piece = chunk.subarray(0, pieceSize)
    const goOn = (taken: boolean) =>
      taken && piece.length < chunk.length ? this.#writePieces(chunk.subarray(pieceSize), room, done) : done(taken)
    const go = () => {
      if (!this.stopped) {
        this.#waiting = undefined
        // By then the caller has returned from `write`.
        if (this.#write(piece, goOn)) setImmediate(goOn, true)
      }
    }
    if (room.hasRoom(piece.length)) return go()
    this.#waiting = done
    room.whenRoom(piece.length, go)
  }

  #write(chunk: Buffer, done: (taken: boolean) => void): boolean {
    const { socket } = this.client
    const pending = { bytes: chunk.length, done }
    this.#pending = pending
    const onWritten = (error?: Error | null) => {
      if (error || this.#pending !== pending) return
      this.#taken(chunk.length)
      if (!sync) done(true)
    }
    let sync = true
    socket.cork()
    this.#begin?.()
    this.#begin = undefined
    socket.write(chunk, onWritten)
    socket.uncork()
    // The kernel has it. Node calls back only in a later turn.
    if (socket.writableLength === 0 && !socket.destroyed) this.#taken(chunk.length)
    sync = false
    return this.#pending === undefined
  }

  /** Sends a chunk. Resolves to whether it went out before `stop` was called. */
  send(chunk: Buffer): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>()
    if (this.write(chunk, resolve)) resolve(true)
    return promise
  }

  /** Sends nothing more. A chunk that Node has already goes out before anything that may follow, and so it counts. */
  stop(): void {
    this.stopped = true
    this.#waiting?.(false)
    this.#waiting = undefined
    const pending = this.#pending
    if (pending === undefined) return
    if (!this.client.socket.destroyed) this.#progress.move(pending.bytes)
    this.#pending = undefined
    pending.done(false)
  }

  #taken(bytes: number): void {
    this.#pending = undefined
    this.#progress.move(bytes)
  }
}

/** Sends a chunk. Never ends if the client goes: race it with what notices that. */
export const sent = (sink: ClientSink, chunk: Buffer): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (sink.write(chunk, () => resume(Effect.void))) return resume(Effect.void)
    return Effect.sync(() => sink.stop())
  })
