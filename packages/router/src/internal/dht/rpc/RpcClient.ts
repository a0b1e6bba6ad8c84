/** The requesting side of one long-lived stream. Requests are pipelined; answers arrive in the order of the requests. */
import type { Stream } from "@libp2p/interface"
import { FrameSplitter } from "./FrameSplitter.ts"
import { decode, type Message } from "./Message.ts"
import { RequestFailed } from "./Protocol.ts"

/** In milliseconds. Go closes an idle stream after 60 s, js-libp2p after 10 s; ours is opened again on demand. */
export const inactivityTimeout = 120_000

interface Pending {
  readonly resolve: (message: Message) => void
  readonly reject: (error: RequestFailed) => void
}

const closed = () => new RequestFailed("the stream was closed", { unreachable: false })

export const asError = (error: unknown): Error => error instanceof Error ? error : new Error(String(error))

export class RpcClient {
  readonly #stream: Stream
  readonly #splitter = new FrameSplitter()
  /** In the order of their answers. A request that timed out keeps its place. */
  readonly #pending: Array<Pending> = []

  constructor(stream: Stream, onClose: () => void) {
    this.#stream = stream
    stream.inactivityTimeout = inactivityTimeout
    stream.addEventListener("message", ({ data }) => {
      try {
        for (const frame of this.#splitter.push(data.subarray())) {
          const request = this.#pending.shift()
          if (request === undefined) throw new RequestFailed("an answer without a request", { unreachable: false })
          request.resolve(decode(frame))
        }
      } catch (error) {
        stream.abort(asError(error))
      }
    })
    const end = () => {
      onClose()
      for (const { reject } of this.#pending.splice(0)) reject(closed())
    }
    stream.addEventListener("close", end)
    stream.addEventListener("remoteCloseWrite", end)
  }

  /** Sends a frame and resolves with its answer. Rejects with `RequestFailed` when the stream ends before. */
  request(frame: Uint8Array): Promise<Message> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ resolve, reject })
      void this.send(frame).catch(() => reject(closed()))
    })
  }

  /** Sends a frame that has no answer; resolves when the stream has taken it. */
  async send(frame: Uint8Array): Promise<void> {
    if (this.#stream.status !== "open") throw closed()
    if (!this.#stream.send(frame)) await this.#stream.onDrain()
  }
}
