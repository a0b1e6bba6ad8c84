/** The answering side of a stream. A peer's messages are handled in turns, and it occupies a few frames of memory at most. */
import type { Connection, Stream } from "@libp2p/interface"
import { Option } from "effect"
import * as PeerAddress from "../../../PeerAddress.ts"
import { FrameSplitter } from "./FrameSplitter.ts"
import { decode, encodeFrame, type Message } from "./Message.ts"
import { asError, inactivityTimeout } from "./RpcClient.ts"

/** How many frames of one peer are handled before the event loop runs other work. */
const framesPerTurn = 128

export interface RpcServerOptions {
  /**
   * Handles a message of a peer that is connected from `address`. Returns the answer, or undefined if none is due. Throws
   * on a message that no peer sends.
   */
  readonly handle: (from: string, address: string, message: Message) => Message | undefined
  /** The peer broke the protocol, and its stream was aborted. */
  readonly onViolation: (connection: Connection) => void
}

/** Serves the streams that peers open. */
export const serve = ({ handle, onViolation }: RpcServerOptions) => (stream: Stream, connection: Connection): void => {
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
    // A peer that does not read its answers is not read from either.
    stream.pause()
    await stream.onDrain()
  }
  const unread = () => {
    waiting = []
    stream.abort(new Error("the peer does not read its answers"))
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
    // `resume` delivers, within this call, what arrived while the stream was paused.
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
