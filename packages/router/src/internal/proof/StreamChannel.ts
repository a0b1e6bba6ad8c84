/** The frames of an exchange on a libp2p stream. */
import type { Stream } from "@libp2p/interface"
import { FrameSplitter } from "../dht/rpc/FrameSplitter.ts"
import type { Channel } from "./Exchange.ts"
import { maxFrameSize } from "./Frame.ts"
import { type FailureReason, ProofFailed } from "./ProofFailure.ts"

/** A side sends two frames at most in one exchange. */
const maxFrames = 2

export class StreamChannel implements Channel {
  readonly #stream: Stream
  readonly #splitter = new FrameSplitter(maxFrameSize)
  readonly #arrived: Array<Uint8Array> = []
  #received = 0
  #failure: FailureReason | undefined
  #waiting: { readonly resolve: (frame: Uint8Array) => void; readonly reject: (error: ProofFailed) => void } | undefined

  constructor(stream: Stream) {
    this.#stream = stream
    stream.addEventListener("message", ({ data }) => {
      try {
        for (const frame of this.#splitter.push(data.subarray())) this.#take(frame)
      } catch {
        this.#end("malformed")
      }
    })
    // A peer that ends the exchange has not proved anything in time.
    const end = () => this.#end("timeout")
    stream.addEventListener("close", end)
    stream.addEventListener("remoteCloseWrite", end)
    if (stream.status !== "open") end()
  }

  send(frame: Uint8Array): void {
    if (this.#stream.writeStatus !== "writable") return
    const prefix = frame.length < 0x80 ? [frame.length] : [(frame.length & 0x7f) | 0x80, frame.length >> 7]
    // Two small frames never fill a stream's window.
    this.#stream.send(Buffer.concat([Uint8Array.from(prefix), frame]))
  }

  receive(): Promise<Uint8Array> {
    const frame = this.#arrived.shift()
    if (frame !== undefined) return Promise.resolve(frame)
    if (this.#failure !== undefined) return Promise.reject(new ProofFailed(this.#failure))
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
    })
  }

  #take(frame: Uint8Array): void {
    if (++this.#received > maxFrames) throw new Error("too many frames")
    if (this.#waiting === undefined) this.#arrived.push(frame)
    else this.#waiting.resolve(frame)
    this.#waiting = undefined
  }

  #end(failure: FailureReason): void {
    this.#failure ??= failure
    this.#waiting?.reject(new ProofFailed(this.#failure))
    this.#waiting = undefined
  }
}
