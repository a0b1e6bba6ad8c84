/**
 * Keeps frames of peers away from the DHT until their connection is admitted. A peer that is a little early loses nothing: its
 * stream is not read meanwhile.
 */
import type { Connection, Stream, StreamHandler } from "@libp2p/interface"
import type { Admission } from "./Admission.ts"

/** Bytes of a held stream that are kept. A peer that sends more before it is admitted loses the stream. */
const maxHeldBytes = 64 * 1024
/** A handler that gives streams to `handle` once their connection is admitted, and aborts those of refused ones. */
export const whenAdmitted = (admission: Admission, handle: StreamHandler): StreamHandler => {
  const held = new WeakSet<Connection>()
  const hold = async (stream: Stream, connection: Connection) => {
    // An honest node needs one stream for each protocol.
    if (held.has(connection)) return stream.abort(new Error("too many streams before the connection is admitted"))
    held.add(connection)
    const readBuffer = stream.maxReadBufferLength
    stream.maxReadBufferLength = maxHeldBytes
    stream.pause()
    const outcome = await admission.settled(connection)
    if (outcome._tag === "Refused" || stream.status !== "open") return stream.abort(new Error("not admitted"))
    stream.maxReadBufferLength = readBuffer
    await handle(stream, connection)
    stream.resume()
    // The handler was not yet there to hear that the peer sends no more.
    if (stream.remoteWriteStatus === "closed") await stream.close()
  }
  return (stream, connection) => {
    const outcome = admission.now(connection)
    if (outcome === undefined) return hold(stream, connection)
    if (outcome._tag === "Refused") return stream.abort(new Error("not admitted"))
    return handle(stream, connection)
  }
}
