/**
 * A connection to a peer from which Node reads only what a reader asks for, into that reader's memory. Readers take turns:
 * one parses the head, another one moves the body. While no reader reads, the mover may.
 */
import { connect, type Socket } from "node:net"

/** Takes the bytes of a connection. */
export interface Reader {
  /** Returns the memory for the next read. Node asks after each read, and may write to that memory until it asks again. */
  readonly space: () => Buffer
  /** Takes what was read; the next read may overwrite it. False: nothing more is read until `resume`. */
  readonly onBytes: (bytes: Buffer) => boolean
  /** The connection is over: the peer ended it, it broke (then with a reason), or `destroy` was called. */
  readonly onEnd: (reason: string | undefined) => void
}

/** Node's handle of a socket, below its streams. It has no public API. */
interface Handle {
  readonly fd?: number
  readonly reading?: boolean
}

const handleOf = (socket: Socket): Handle | undefined => (socket as { readonly _handle?: Handle })._handle

/** The descriptor of a plain connection; undefined if its bytes need processing (TLS), or the connection is closed. */
export const descriptorOf = (socket: Socket): number | undefined => {
  const fd = "encrypted" in socket || socket.destroyed ? undefined : handleOf(socket)?.fd
  return fd === undefined || fd < 0 ? undefined : fd
}

/** One TCP connection to a peer. It ends once: with the peer's FIN, an error or `destroy`. Then it tells its reader. */
export class PeerSocket {
  readonly socket: Socket
  #reader: Reader
  /** The reader whose memory the next read goes to. Node asks after each read, and not again when the reader changes. */
  #asked: Reader
  /** The last call of `resume` or `pause` during a delivery. libuv acts on it when the delivery returns. */
  #decided: "read on" | "stop" | undefined
  #delivering = false
  #ended = false

  /** Connects. `reader` reads until another one does. */
  constructor(address: { readonly host: string; readonly port: number }, reader: Reader) {
    this.#reader = reader
    this.#asked = reader
    this.socket = connect({
      ...address,
      noDelay: true,
      onread: {
        buffer: () => {
          this.#asked = this.#reader
          return this.#asked.space()
        },
        callback: (size, bytes) => {
          const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, size)
          return this.#deliver(this.#asked === this.#reader ? chunk : Buffer.from(chunk))
        }
      }
    })
    this.socket.on("error", (error) => this.#end(error.message))
    this.socket.on("end", () => this.#end(undefined))
    this.socket.on("close", () => this.#end(undefined))
  }

  /** True if Node reads nothing until `resume`. */
  get idle(): boolean {
    return this.#delivering ? this.#decided === "stop" : handleOf(this.socket)?.reading === false
  }

  /** True once the connection is over. */
  get ended(): boolean {
    return this.#ended
  }

  /** Lets another reader have the next bytes; returns the previous one. */
  use(reader: Reader): Reader {
    const before = this.#reader
    this.#reader = reader
    return before
  }

  /** Continues to read. */
  resume(): void {
    if (this.#ended) return
    if (this.#delivering) this.#decided = "read on"
    else this.socket.resume()
  }

  /** Stops reading. */
  pause(): void {
    if (this.#delivering) this.#decided = "stop"
    else this.socket.pause()
  }

  /** Closes the connection at once. The reader's `onEnd` follows. */
  destroy(): void {
    this.socket.destroy()
  }

  /** A reader may call `resume` and `pause` while it is given bytes, directly or not: the last call counts. */
  #deliver(bytes: Buffer): boolean {
    this.#delivering = true
    this.#decided = undefined
    const more = this.#reader.onBytes(bytes)
    this.#delivering = false
    return this.#decided === undefined ? more : this.#decided === "read on"
  }

  #end(reason: string | undefined): void {
    if (this.#ended) return
    this.#ended = true
    this.socket.destroy()
    this.#reader.onEnd(reason)
  }
}
