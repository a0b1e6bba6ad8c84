/** Sends a body to the client of a response whose head is set. The head goes out with the first byte. */
import type { ByteRange } from "@spegel-ts/oci/ByteRange"
import type { Client, TransferError } from "@spegel-ts/transfer/Body"
import { BodyInterrupted, clientGone } from "@spegel-ts/transfer/BodyInterrupted"
import { ClientSink, pieceSize, sent } from "@spegel-ts/transfer/ClientSink"
import * as ClientWatch from "@spegel-ts/transfer/ClientWatch"
import { Progress } from "@spegel-ts/transfer/Progress"
import type { Transfer } from "@spegel-ts/transfer/Transfer"
import { Duration, Effect } from "effect"
import type { FileHandle } from "node:fs/promises"
import type { ServerResponse } from "node:http"
import type { Socket } from "node:net"
import { clientTimeout } from "../../HttpListener.ts"
import type { BodyMemory } from "../memory/BodyMemory.ts"

/** The client of a body, and how much of the body has gone to it. */
export interface Recipient {
  readonly client: Client
  readonly progress: Progress
}

/** The client of a response, as bodies are moved to it. */
export const recipientOf = (response: ServerResponse, socket: Socket, memory: BodyMemory): Recipient => {
  let begun = false
  const client: Client = {
    socket,
    // Bodies of several peers are one body to the client.
    begin: () => {
      if (!begun) response.flushHeaders()
      begun = true
    },
    room: {
      hasRoom: (bytes) => memory.hasRoom(socket, bytes),
      whenRoom: (bytes, resume) => memory.whenRoom(socket, bytes, resume)
    }
  }
  return { client, progress: new Progress() }
}

/** Fails if the client takes nothing for too long. */
export const whileTaking = <A, E, R>(
  progress: Progress,
  body: Effect.Effect<A, E | BodyInterrupted, R>
): Effect.Effect<A, E | BodyInterrupted, R> =>
  Effect.raceFirst(
    body,
    Effect.mapError(
      ClientWatch.watch(progress, Duration.toMillis(clientTimeout)),
      ({ message }) => new BodyInterrupted({ reason: message })
    )
  )

/** Sends `[start, end)` of a file. If the mover dies, the rest goes the portable way. */
const sendFrom = (_tag: "File" | "GrowingFile") =>
(
  { move }: Transfer["Service"],
  handle: FileHandle,
  { end, start }: ByteRange,
  { client, progress }: Recipient
): Effect.Effect<void, BodyInterrupted> => {
  const rest = (mayRepeat: boolean): Effect.Effect<void, TransferError> =>
    Effect.suspend(() => {
      const offset = start + progress.moved
      return move({ source: { _tag, handle, offset }, client, length: end - offset, progress })
    }).pipe(
      Effect.asVoid,
      Effect.catchTag("TransferFailed", (error) => mayRepeat ? rest(false) : Effect.fail(error))
    )
  return whileTaking(
    progress,
    Effect.mapError(rest(true), ({ message }) => new BodyInterrupted({ reason: message }))
  )
}

/** Sends `[start, end)` of a complete file. */
export const sendFile = sendFrom("File")

/** Sends `[start, end)` of a file that is still being written, and waits for what is missing. Interrupt it to give up. */
export const sendGrowing = sendFrom("GrowingFile")

/** Sends bytes that are in memory. */
export const sendBytes = Effect.fnUntraced(function*(
  bytes: Uint8Array,
  { client, progress }: Recipient
): Effect.fn.Return<void, BodyInterrupted> {
  const sink = new ClientSink(client, progress)
  for (let at = 0; at < bytes.length; at += pieceSize) {
    if (client.socket.destroyed) return yield* new BodyInterrupted({ reason: clientGone })
    yield* sent(sink, Buffer.from(bytes.buffer, bytes.byteOffset + at, Math.min(pieceSize, bytes.length - at)))
  }
})

/** Ends a response, and waits until the kernel has its last byte. */
export const finish = (response: ServerResponse): Effect.Effect<void, BodyInterrupted> =>
  Effect.callback((resume) => {
    if (response.destroyed) return resume(Effect.fail(new BodyInterrupted({ reason: clientGone })))
    const onFinish = () => resume(Effect.void)
    const onClose = () =>
      resume(response.writableFinished ? Effect.void : Effect.fail(new BodyInterrupted({ reason: clientGone })))
    response.once("finish", onFinish).once("close", onClose).end()
    return Effect.sync(() => response.off("finish", onFinish).off("close", onClose))
  })
