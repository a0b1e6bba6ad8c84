/** The asking side of one long-lived stream: requests follow each other without waiting, answers come in their order. */
import type { Stream } from "@libp2p/interface"
import { FrameSplitter } from "./FrameSplitter.ts"
import { decode, type Message } from "./Message.ts"
import { RequestFailed } from "./Protocol.ts"

/** Go closes a stream that is idle for 60 s, js-libp2p one of 10 s; ours may rest, and is opened again on demand. */
export const inactivityTimeout = 120_000

interface Pending {
  readonly resolve: (message: Message) => void
  readonly reject: (error: RequestFailed) => void
}

const closed = () => new RequestFailed("the stream was closed", { unreachable: false })

export const asError = (error: unknown): Error => error instanceof Error ? error : new Error(String(error))

export class Channel {
  readonly #stream: Stream
  readonly #splitter = new FrameSplitter()
  /** Requests in the order of their answers; one that nobody waits for any more keeps its place. */
  readonly #pending: Array<Pending> = []
  constructor(stream: Stream, onClose: () => void) {
    this.#stream = stream
    stream.inactivityTimeout = inactivityTimeout
    stream.addEventListener("message", ({ data }) => {
      try {
        for (const frame of this.#splitter.push(data.subarray())) {
          const asker = this.#pending.shift()
          if (asker === undefined) throw new RequestFailed("an answer without a question", { unreachable: false })
          asker.resolve(decode(frame))
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

  request(frame: Uint8Array): Promise<Message> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ resolve, reject })
      void this.send(frame).catch(() => reject(closed()))
    })
  }

  async send(frame: Uint8Array): Promise<void> {
    if (this.#stream.status !== "open") throw closed()
    if (!this.#stream.send(frame)) await this.#stream.onDrain()
  }
}
