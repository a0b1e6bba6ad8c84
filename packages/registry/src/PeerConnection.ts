/**
 * A connection to a peer's registry, used for one exchange after another: a raw socket that reads into a buffer which
 * is reused. While it waits, for an answer or for the next request, it has no buffer of its own.
 */
import { connect, type Socket } from "node:net"
import type { Exchange } from "./Exchange.ts"

/** What all connections read heads into, one at a time: whatever is to outlive the reading is copied. */
const shared = Buffer.allocUnsafeSlow(16 * 1024)

export class PeerConnection {
  readonly address: string
  readonly #socket: Socket
  readonly #onGone: (reason: string | undefined) => void
  #exchange: Exchange | undefined
  #gone = false
  /** How long the peer may be silent; 0 where others look after that. */
  #patienceMillis = 0
  #activeAt = 0
  /** Looks at the last activity when it fires: to start it anew with each read, as sockets do, costs more. */
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
    this.#socket = connect({
      host: address,
      port,
      noDelay: true,
      onread: {
        // Asked for anew after each read.
        buffer: () => this.#exchange?.nextBuffer() ?? shared,
        callback: (size, bytes) => this.#onRead(Buffer.from(bytes.buffer, bytes.byteOffset, size))
      }
    })
    this.#socket.on("connect", onConnected)
    this.#socket.on("error", (error) => this.#end(error.message))
    this.#socket.on("end", () => this.#end(undefined))
    this.#socket.on("close", () => this.#end(undefined))
  }

  /** By which the kernel's tables name the connection. */
  get localPort(): number | undefined {
    return this.#socket.localPort
  }

  get gone(): boolean {
    return this.#gone
  }

  send(exchange: Exchange, head: string): void {
    this.#exchange = exchange
    // Until bytes flow, time limits are the caller's.
    this.#expect(0)
    this.#socket.write(head, "latin1")
  }

  /** Reads on; whoever has the exchange is told of a silence. */
  resume(stallMillis: number): void {
    if (this.#gone) return
    this.#expect(stallMillis)
    this.#socket.resume()
  }

  /** The exchange is over: what comes now was not asked for, and nothing may come for so long. */
  rest(idleMillis: number): void {
    this.#exchange = undefined
    this.#expect(idleMillis)
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

  #expect(patienceMillis: number): void {
    this.#activeAt = performance.now()
    if (patienceMillis !== this.#patienceMillis) {
      this.#patienceMillis = patienceMillis
      clearTimeout(this.#timer)
      this.#timer = undefined
    }
    if (this.#timer === undefined && patienceMillis > 0) this.#look(patienceMillis)
  }

  #look(afterMillis: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      const left = this.#patienceMillis - (performance.now() - this.#activeAt)
      if (left > 0) this.#look(left)
      else if (this.#exchange === undefined) this.destroy()
      else this.#exchange.onSilence()
    }, afterMillis)
  }

  #onRead(bytes: Buffer): boolean {
    this.#activeAt = performance.now()
    const exchange = this.#exchange
    if (exchange === undefined) {
      this.destroy()
      return false
    }
    const more = exchange.onBytes(bytes)
    // A connection that rests is read, so that its end is seen.
    return more || this.#exchange !== exchange
  }

  #end(reason: string | undefined): void {
    if (this.#gone) return
    this.#gone = true
    clearTimeout(this.#timer)
    this.#socket.destroy()
    this.#onGone(reason)
    this.#exchange?.onClosed(reason)
  }
}
