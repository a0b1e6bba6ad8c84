import type { Channel } from "@spegel-ts/router/internal/proof/Exchange"
import { ProofFailed } from "@spegel-ts/router/internal/proof/ProofFailure"

/** One end of a channel in memory. */
export interface End extends Channel {
  /** The frames that this end has sent. */
  readonly sent: Array<Uint8Array>
  /** Ends the channel for this end, as when the stream is closed. */
  readonly end: () => void
}

/** Two ends of a channel. `change` may replace a frame on its way; `from` is the end that sent it. */
export const channel = (change: (frame: Uint8Array, from: 0 | 1) => Uint8Array = (frame) => frame): [End, End] => {
  const queues: [Array<Uint8Array>, Array<Uint8Array>] = [[], []]
  const wakes: [() => void, () => void] = [() => undefined, () => undefined]
  const ended = [false, false]
  const endOf = (index: 0 | 1): End => {
    const other = index === 0 ? 1 : 0
    const sent: Array<Uint8Array> = []
    const receive = async (): Promise<Uint8Array> => {
      const frame = queues[index].shift()
      if (frame !== undefined) return frame
      if (ended[index] === true) throw new ProofFailed("timeout")
      await new Promise<void>((resolve) => {
        wakes[index] = resolve
      })
      return receive()
    }
    return {
      sent,
      receive,
      send: (frame) => {
        sent.push(frame)
        queues[other].push(change(frame, index))
        wakes[other]()
      },
      end: () => {
        ended[index] = true
        wakes[index]()
      }
    }
  }
  return [endOf(0), endOf(1)]
}

/** Why a promise was rejected, or what it resolved with. */
export const endOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(() => "proved", (error: unknown) => error instanceof ProofFailed ? error.reason : String(error))
