/** The answering side of a stream, with its bounds: a peer gets its turn, and no more memory than a few frames. */
import type { Connection, Stream } from "@libp2p/interface"
import { asError, inactivityTimeout } from "./Channel.ts"
import { FrameSplitter } from "./FrameSplitter.ts"
import { decode, encodeFrame, type Message } from "./Message.ts"

/** Frames of one peer that are answered before everybody else has a turn. */
const framesPerTurn = 64

export interface ServedStreamOptions {
  /** Answers a message; undefined where none is due. Throws on what no peer sends. */
  readonly handle: (from: string, message: Message) => Message | undefined
  /** The peer broke the protocol, and its stream was ended. */
  readonly onViolation: (connection: Connection) => void
}

export const serve =
  ({ handle, onViolation }: ServedStreamOptions) => (stream: Stream, connection: Connection): void => {
    const from = connection.remotePeer.toString()
    const splitter = new FrameSplitter()
    let waiting: Array<Uint8Array> = []
    let busy = false
    stream.inactivityTimeout = inactivityTimeout

    const violated = (error: unknown) => {
      waiting = []
      stream.abort(asError(error))
      onViolation(connection)
    }
    const send = async (answer: Message) => {
      if (stream.send(encodeFrame(answer))) return
      // Who does not read its answers is not read either.
      stream.pause()
      await stream.onDrain()
    }
    const work = async () => {
      busy = true
      for (let next = 0; next < waiting.length; next++) {
        if (next % framesPerTurn === framesPerTurn - 1) {
          stream.pause()
          await new Promise((resolve) => setImmediate(resolve))
        }
        const frame = waiting[next]
        const answer = frame === undefined ? undefined : handle(from, decode(frame))
        if (answer !== undefined) await send(answer).catch(() => stream.abort(new Error("the peer does not read")))
      }
      waiting = []
      busy = false
      // What came meanwhile is delivered within this call.
      if (stream.readStatus === "paused") stream.resume()
    }
    stream.addEventListener("message", ({ data }) => {
      try {
        for (const frame of splitter.push(data.subarray())) waiting.push(frame)
      } catch (error) {
        return violated(error)
      }
      if (!busy) void work().catch(violated)
    })
    stream.addEventListener("remoteCloseWrite", () => {
      void stream.close().catch(() => undefined)
    })
  }
