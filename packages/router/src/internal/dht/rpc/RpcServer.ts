/** The answering side of a stream, with its bounds: a peer gets its turn, and no more memory than a few frames. */
import type { Connection, Stream } from "@libp2p/interface"
import { Option } from "effect"
import * as PeerAddress from "../../../PeerAddress.ts"
import { FrameSplitter } from "./FrameSplitter.ts"
import { decode, encodeFrame, type Message } from "./Message.ts"
import { asError, inactivityTimeout } from "./RpcClient.ts"

/** Frames of one peer that are answered before everybody else has a turn. */
const framesPerTurn = 128

export interface ServedStreamOptions {
  /** Answers a message of a peer that is connected from `address`; undefined where none is due. Throws on what no peer sends. */
  readonly handle: (from: string, address: string, message: Message) => Message | undefined
  /** The peer broke the protocol, and its stream was ended. */
  readonly onViolation: (connection: Connection) => void
}

export const serve =
  ({ handle, onViolation }: ServedStreamOptions) => (stream: Stream, connection: Connection): void => {
    const from = connection.remotePeer.toString()
    const address = Option.getOrElse(PeerAddress.ipOf(connection.remoteAddr), () => from)
    const splitter = new FrameSplitter()
    let waiting: Array<Uint8Array> = []
    let busy = false
    stream.inactivityTimeout = inactivityTimeout

    const violated = (error: unknown) => {
      waiting = []
      stream.abort(asError(error))
      onViolation(connection)
    }
    const send = async (answers: ReadonlyArray<Uint8Array>) => {
      if (answers.length === 0 || stream.send(Buffer.concat(answers))) return
      // Who does not read its answers is not read either.
      stream.pause()
      await stream.onDrain()
    }
    const unread = () => {
      waiting = []
      stream.abort(new Error("the peer does not read"))
    }
    const work = async () => {
      busy = true
      while (waiting.length > 0) {
        const answers: Array<Uint8Array> = []
        for (const frame of waiting.splice(0, framesPerTurn)) {
          const answer = handle(from, address, decode(frame))
          if (answer !== undefined) answers.push(encodeFrame(answer))
        }
        await send(answers).catch(unread)
        if (waiting.length === 0) break
        stream.pause()
        await new Promise((resolve) => setImmediate(resolve))
      }
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
