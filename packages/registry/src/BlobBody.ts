/**
 * Bytes to the client, below the response: to its socket, from memory that is used again. A slow client slows the source:
 * nothing is queued.
 */
import type { ByteRange } from "@spegel-ts/oci/ByteRange"
import { Data, Effect } from "effect"
import type { FileHandle } from "node:fs/promises"
import type { ServerResponse } from "node:http"
import { BodyBuffer } from "./BodyBuffer.ts"

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
  onTaken: OnTaken = () => {}
): Effect.Effect<void, BodyInterrupted> =>
  Effect.tryPromise({
    try: (signal) => copy(handle, range, clientWriter(response, onTaken), () => signal.aborted || response.destroyed),
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

/**
 * Sends a chunk. True: the kernel took it at once. False: `done` is called when the chunk may be overwritten, and told
 * whether it was taken; it was not where the client has gone. Chunks come one after another.
 */
export type ClientWriter = (chunk: Buffer, done: (taken: boolean) => void) => boolean

/**
 * Writes to the client's socket below the response, whose head is set and goes out with the first chunk:
 * `ServerResponse.write` corks until the next tick and so never completes at once.
 */
export const clientWriter = (response: ServerResponse, onTaken: OnTaken = () => {}): ClientWriter => {
  let headSent = false
  return (chunk, done) => {
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
}
