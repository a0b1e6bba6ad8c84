/**
 * A connection to a peer's registry, used for one exchange after another. While it waits for a response or for the next
 * request, it has no buffer of its own.
 */
import { PeerSocket } from "../../PeerSocket.ts"
import type { Exchange } from "./Exchange.ts"

/** All connections read heads into this, one at a time: what is to be kept is copied. */
const shared = Buffer.allocUnsafeSlow(16 * 1024)

export class PeerConnection {
  readonly address: string
  /** A body may be moved from it. Nobody else reads from it. */
  readonly socket: PeerSocket
  readonly #onGone: (reason: string | undefined) => void
  #exchange: Exchange | undefined
  #gone = false
  /** Closes the connection when it has been idle for too long. */
  #timer: NodeJS.Timeout | undefined

  /** `onGone` is called once, whichever side closed the connection. */
  constructor(
    address: string,
    port: number,
    onConnected: () => void,
    onGone: (reason: string | undefined) => void
  ) {
    this.address = address
    this.#onGone = onGone
    this.socket = new PeerSocket({ host: address, port }, {
      space: () => this.#exchange?.nextBuffer() ?? shared,
      onBytes: (bytes) => this.#onRead(bytes),
      onEnd: (reason) => this.#end(reason)
    })
    this.socket.socket.on("connect", onConnected)
  }

  /** This node's port, by which the kernel's tables name the connection. */
  get localPort(): number | undefined {
    return this.socket.socket.localPort
  }

  get gone(): boolean {
    return this.#gone || this.socket.ended
  }

  send(exchange: Exchange, head: string): void {
    clearTimeout(this.#timer)
    this.#exchange = exchange
    this.socket.socket.write(head, "latin1")
  }

  resume(): void {
    this.socket.resume()
  }

  /**
   * Ends the exchange. The connection is closed if it stays idle for too long, or on any byte: nothing was asked for. It is
   * read, because only then Node notices when the peer closes it.
   */
  rest(idleMillis: number): void {
    this.#exchange = undefined
    this.#timer = setTimeout(() => this.destroy(), idleMillis)
    this.socket.resume()
  }

  /** Closes the connection, and fails the exchange on it. */
  destroy(): void {
    this.#end(undefined)
  }

  /** Closes the connection without an event to its exchange. */
  drop(): void {
    this.#exchange = undefined
    this.#end(undefined)
  }

  #onRead(bytes: Buffer): boolean {
    const exchange = this.#exchange
    if (exchange === undefined) {
      this.destroy()
      return false
    }
    return exchange.onBytes(bytes)
  }

  #end(reason: string | undefined): void {
    if (this.#gone) return
    this.#gone = true
    clearTimeout(this.#timer)
    this.socket.destroy()
    this.#onGone(reason)
    this.#exchange?.onClosed(reason)
  }
}
