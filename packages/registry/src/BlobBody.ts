/**
 * Bytes to the client. Files go through two buffers of a pool, one being read while the other is written; a peer's
 * bytes go from its read buffer to the client's socket. A slow client slows the source: nothing is queued.
 */
import type { ByteRange } from "@spegel-ts/oci/ByteRange"
import { Data, Effect } from "effect"
import type { FileHandle } from "node:fs/promises"
import type { ServerResponse } from "node:http"
import { BufferPool } from "./BufferPool.ts"
import type { ByteSink } from "./Exchange.ts"

/** The body could not be sent to its end; the connection is closed, so that the client sees it. */
export class BodyInterrupted extends Data.TaggedError("BodyInterrupted")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

const pool = new BufferPool(256 * 1024, 32)

export const clientGone = "the client closed the connection before the body was complete"

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

/** A buffer is used again only after its write's callback: until then the socket may still read it. */
const copy = async (file: FileHandle, range: ByteRange, response: ServerResponse, signal: AbortSignal) => {
  let fail: (error: Error) => void = () => {}
  // A write to a destroyed socket is dropped without a callback.
  const stop = () => fail(new Error(clientGone))
  const write = (chunk: Uint8Array) =>
    new Promise<void>((resolve, reject) => {
      fail = reject
      response.write(chunk, (error) => error ? reject(error) : resolve())
    })
  response.once("close", stop)
  signal.addEventListener("abort", stop, { once: true })
  try {
    let position = range.start
    let pending = Promise.resolve()
    let current = pool.acquire()
    let next = pool.acquire()
    while (position < range.end) {
      const { bytesRead } = await file.read(current, 0, Math.min(current.length, range.end - position), position)
      if (bytesRead === 0) throw new Error(`the file ended at byte ${position} of ${range.end}`)
      await pending
      if (signal.aborted || response.destroyed) throw new Error(clientGone)
      position += bytesRead
      pending = write(current.subarray(0, bytesRead))
      // Awaited in the next turn; a failure before that is not an unhandled one.
      pending.catch(() => {})
      ;[current, next] = [next, current]
    }
    await pending
    pool.release(current)
    pool.release(next)
  } finally {
    response.off("close", stop)
    signal.removeEventListener("abort", stop)
  }
}

/**
 * Writes to the client's socket below the response, whose head must be flushed: `ServerResponse.write` corks until the
 * next tick and so never completes at once.
 */
export const clientSink = (response: ServerResponse): ByteSink => ({
  write: (chunk, resume) => {
    const { socket } = response
    if (socket === null || socket.destroyed) return false
    let sync = true
    socket.write(chunk, () => {
      if (!sync) resume()
    })
    if (socket.writableLength === 0) return true
    sync = false
    return false
  }
})
