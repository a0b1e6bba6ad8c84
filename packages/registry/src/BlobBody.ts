/**
 * Bytes to the client, below the response: to its socket. A file's bytes go through one pooled buffer a stream, a peer's
 * from its read buffer. A slow client slows the source: nothing is queued.
 */
import type { ByteRange } from "@spegel-ts/oci/ByteRange"
import { Data, Effect } from "effect"
import type { FileHandle } from "node:fs/promises"
import type { ServerResponse } from "node:http"
import { bodyBuffers, smallSize } from "./BufferPool.ts"
import type { ByteSink } from "./Exchange.ts"

/** The body could not be sent to its end; the connection is closed, so that the client sees it. */
export class BodyInterrupted extends Data.TaggedError("BodyInterrupted")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

export const clientGone = "the client closed the connection before the body was complete"

/** Below this speed a client gets small chunks, which cost more CPU a byte and hold less memory while they wait. */
const slowBytesPerMilli = 10_000

/** Sends `[start, end)` of a file as the body of a response whose head is set, and ends the response. */
export const sendFile = (
  handle: FileHandle,
  range: ByteRange,
  response: ServerResponse
): Effect.Effect<void, BodyInterrupted> =>
  Effect.tryPromise({
    try: (signal) => copy(handle, range, response, signal),
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
const copy = async (file: FileHandle, range: ByteRange, response: ServerResponse, signal: AbortSignal) => {
  const sink = clientSink(response)
  let position = range.start
  let slow = false
  // Speed is told from one wait for the client to the next: in between, the kernel takes what it has room for.
  let waited = { at: performance.now(), position }
  while (position < range.end) {
    const left = range.end - position
    const buffer = bodyBuffers.acquire(slow ? smallSize : left)
    let inUse = false
    try {
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, left), position)
      if (bytesRead === 0) throw new Error(`the file ended at byte ${position} of ${range.end}`)
      if (signal.aborted || response.destroyed) throw new Error(clientGone)
      position += bytesRead
      const written = taken(sink, buffer.subarray(0, bytesRead), response, signal)
      if (written === undefined) continue
      inUse = true
      await written
      inUse = false
      const now = { at: performance.now(), position }
      slow = position - waited.position < slowBytesPerMilli * (now.at - waited.at)
      waited = now
    } finally {
      if (inUse) bodyBuffers.forget(buffer)
      else bodyBuffers.release(buffer)
    }
  }
}

/** Undefined where the kernel took the whole chunk at once. Fails when it never will. */
const taken = (sink: ByteSink, chunk: Buffer, response: ServerResponse, signal: AbortSignal) => {
  const { promise, reject, resolve } = Promise.withResolvers<void>()
  if (sink.write(chunk, resolve)) return undefined
  // A write to a socket that is destroyed is dropped without a callback.
  const stop = () => reject(new Error(clientGone))
  response.once("close", stop)
  signal.addEventListener("abort", stop, { once: true })
  return promise.finally(() => {
    response.off("close", stop)
    signal.removeEventListener("abort", stop)
  })
}

/**
 * Writes to the client's socket below the response, whose head is set and goes out with the first chunk:
 * `ServerResponse.write` corks until the next tick and so never completes at once.
 */
export const clientSink = (response: ServerResponse): ByteSink => {
  let headSent = false
  return {
    write: (chunk, resume) => {
      const { socket } = response
      if (socket === null || socket.destroyed) return false
      let sync = true
      const done = (error?: Error | null) => {
        if (!sync && !error) resume()
      }
      if (headSent) socket.write(chunk, done)
      else {
        headSent = true
        socket.cork()
        response.flushHeaders()
        socket.write(chunk, done)
        socket.uncork()
      }
      if (socket.writableLength === 0) return true
      sync = false
      return false
    }
  }
}
