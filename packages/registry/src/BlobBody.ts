/**
 * Bytes to the client, below the response: to its socket, from memory that is used again. A slow client slows the source:
 * nothing is queued.
 */
import type { ByteRange } from "@spegel-ts/oci/ByteRange"
import { Data, Effect } from "effect"
import type { FileHandle } from "node:fs/promises"
import type { ServerResponse } from "node:http"
import type { Socket } from "node:net"
import { BodyBuffer } from "./BodyBuffer.ts"
import { smallSize } from "./BufferPool.ts"

/** The body could not be sent to its end; the connection is closed, so that the client sees it. */
export class BodyInterrupted extends Data.TaggedError("BodyInterrupted")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

export const clientGone = "the client closed the connection before the body was complete"

/** Told of the bytes that a client's socket has taken. */
export type OnTaken = (bytes: number) => void

/** Sends `[start, end)` of a file as the body of a response whose head is set, and ends the response. */
export const sendFile = (
  handle: FileHandle,
  range: ByteRange,
  response: ServerResponse,
  memory: SendRoom,
  onTaken: OnTaken
): Effect.Effect<void, BodyInterrupted> =>
  sending(
    response,
    (signal) => copy(handle, range, clientWriter(response, memory, onTaken), () => signal.aborted || response.destroyed)
  )

/** Sends bytes that are in memory as the body of a response whose head is set, and ends the response. */
export const sendBytes = (
  bytes: Uint8Array,
  response: ServerResponse,
  memory: SendRoom,
  onTaken: OnTaken = () => {}
): Effect.Effect<void, BodyInterrupted> =>
  sending(response, () => copyBytes(bytes, clientWriter(response, memory, onTaken)))

const sending = (response: ServerResponse, send: (signal: AbortSignal) => Promise<void>) =>
  Effect.tryPromise({
    try: send,
    catch: (cause) => new BodyInterrupted({ reason: cause instanceof Error ? cause.message : String(cause) })
  }).pipe(Effect.andThen(finish(response)))

/** Waits until the kernel has the response's last byte. */
export const finish = (response: ServerResponse): Effect.Effect<void, BodyInterrupted> =>
  Effect.callback((resume) => {
    if (response.destroyed) return resume(Effect.fail(new BodyInterrupted({ reason: clientGone })))
    const onFinish = () => resume(Effect.void)
    const onClose = () =>
      resume(response.writableFinished ? Effect.void : Effect.fail(new BodyInterrupted({ reason: clientGone })))
    response.once("finish", onFinish).once("close", onClose).end()
    return Effect.sync(() => response.off("finish", onFinish).off("close", onClose))
  })

/** One buffer is enough: while the kernel still has bytes of the last one, the client does not wait for the disk. */
const copy = async (file: FileHandle, range: ByteRange, write: ClientWriter, isOver: () => boolean) => {
  const buffer = new BodyBuffer(range.end - range.start, false)
  let position = range.start
  try {
    while (position < range.end) {
      const { space } = buffer
      const { bytesRead } = await file.read(space, 0, Math.min(space.length, range.end - position), position)
      if (bytesRead === 0) throw new Error(`the file ended at byte ${position} of ${range.end}`)
      if (isOver()) throw new Error(clientGone)
      position += bytesRead
      const chunk = space.subarray(0, bytesRead)
      const giveBack = buffer.lend(chunk, 1)
      const { promise: taken, resolve } = Promise.withResolvers<boolean>()
      if (write(chunk, resolve)) giveBack()
      else {
        const went = await taken
        giveBack()
        if (!went) throw new Error(clientGone)
        buffer.waited()
      }
    }
  } finally {
    buffer.close()
  }
}

const copyBytes = async (bytes: Uint8Array, write: ClientWriter) => {
  for (let at = 0; at < bytes.length; at += smallSize) {
    const { promise: taken, resolve } = Promise.withResolvers<boolean>()
    const chunk = Buffer.from(bytes.buffer, bytes.byteOffset + at, Math.min(smallSize, bytes.length - at))
    if (!write(chunk, resolve) && !(await taken)) throw new Error(clientGone)
  }
}

/** How much more may be sent to a client now; `BodyMemory` says. */
export interface SendRoom {
  readonly hasRoom: (socket: Socket, bytes: number) => boolean
  readonly whenRoom: (socket: Socket, bytes: number, resume: () => void) => void
}

/**
 * Sends a chunk. True: the kernel took it at once. False: `done` is called when the chunk may be overwritten, and told
 * whether it was taken; it was not where the client has gone. Chunks come one after another.
 */
export type ClientWriter = (chunk: Buffer, done: (taken: boolean) => void) => boolean

/**
 * Writes to the client's socket below the response, whose head is set and goes out with the first chunk:
 * `ServerResponse.write` corks until the next tick and so never completes at once.
 */
export const clientWriter = (response: ServerResponse, memory: SendRoom, onTaken: OnTaken): ClientWriter => {
  let headSent = false
  const send: ClientWriter = (chunk, done) => {
    const { socket } = response
    if (socket === null || socket.destroyed) {
      queueMicrotask(() => done(false))
      return false
    }
    let sync = true
    const written = (error?: Error | null) => {
      if (sync) return
      if (!error) onTaken(chunk.length)
      done(!error)
    }
    if (headSent) socket.write(chunk, written)
    else {
      headSent = true
      socket.cork()
      response.flushHeaders()
      socket.write(chunk, written)
      socket.uncork()
    }
    if (socket.writableLength === 0) {
      onTaken(chunk.length)
      return true
    }
    sync = false
    return false
  }
  /** Sends a chunk in pieces, each once there is room for it. */
  const sendPieces = (socket: Socket, chunk: Buffer, done: (taken: boolean) => void): void => {
    const piece = chunk.subarray(0, smallSize)
    const goOn = (taken: boolean) =>
      taken && piece.length < chunk.length ? sendPieces(socket, chunk.subarray(smallSize), done) : done(taken)
    const go = () => {
      if (send(piece, goOn)) goOn(true)
    }
    if (memory.hasRoom(socket, piece.length)) go()
    else memory.whenRoom(socket, piece.length, go)
  }
  return (chunk, done) => {
    const { socket } = response
    if (socket === null || memory.hasRoom(socket, chunk.length)) return send(chunk, done)
    let sync = true
    sendPieces(socket, chunk, (taken) => {
      if (sync) queueMicrotask(() => done(taken))
      else done(taken)
    })
    sync = false
    return false
  }
}
