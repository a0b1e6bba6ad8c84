/**
 * A connection to a peer's registry, used for one exchange after another: a raw socket that reads into a buffer which
 * is reused. While it waits, for an answer or for the next request, it has no buffer of its own.
 */
import { PeerSocket } from "../../PeerSocket.ts"
import type { Exchange } from "./Exchange.ts"

/** What all connections read heads into, one at a time: whatever is to outlive the reading is copied. */
const shared = Buffer.allocUnsafeSlow(16 * 1024)

export class PeerConnection {
  readonly address: string
  /** For who moves a body; nobody else reads from it. */
  readonly socket: PeerSocket
  readonly #onGone: (reason: string | undefined) => void
  #exchange: Exchange | undefined
  #gone = false
  /** Ends the connection when it has rested for too long. */
  #timer: NodeJS.Timeout | undefined

  /** `onGone` is called once, whoever ended the connection. */
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

  /** By which the kernel's tables name the connection. */
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

  /** The exchange is over: what comes now was not asked for, and nothing may come for so long. It is read, so that its end is seen. */
  rest(idleMillis: number): void {
    this.#exchange = undefined
    this.#timer = setTimeout(() => this.destroy(), idleMillis)
    this.socket.resume()
  }

  /** Ends the connection, and tells the exchange on it. */
  destroy(): void {
    this.#end(undefined)
  }

  /** Ends the connection for an exchange that knows. */
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
