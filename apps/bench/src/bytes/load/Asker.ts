/** A client that asks for small things on one connection, one after another, as containerd does. */
import { connect, type Socket } from "node:net"
import type { Address } from "./Servers.ts"

export interface SmallAnswer {
  readonly status: number
  /** Milliseconds from the request to the first byte of its answer. */
  readonly millis: number
}

export class Asker {
  readonly #socket: Socket
  #onData: (chunk: Buffer) => void = () => {}
  #onEnd: (error: Error) => void = () => {}

  readonly #headers: string

  /** Each request has these lines besides. */
  constructor({ host, port }: Address, headers: ReadonlyArray<string> = []) {
    this.#headers = headers.map((line) => `${line}\r\n`).join("")
    this.#socket = connect({ host, port, noDelay: true })
      .on("data", (chunk) => this.#onData(chunk))
      .on("error", (error) => this.#onEnd(error))
      .on("close", () => this.#onEnd(new Error("the connection was closed")))
  }

  ask(path: string): Promise<SmallAnswer> {
    return new Promise((resolve, reject) => {
      const begun = performance.now()
      let millis = 0
      let text = ""
      this.#onEnd = reject
      this.#onData = (chunk) => {
        if (text === "") millis = performance.now() - begun
        text += chunk.toString("latin1")
        const end = text.indexOf("\r\n\r\n")
        const length = Number(/^content-length: (\d+)/im.exec(text)?.[1])
        if (end !== -1 && text.length >= end + 4 + length) resolve({ status: Number(text.slice(9, 12)), millis })
      }
      this.#socket.write(`GET ${path} HTTP/1.1\r\nhost: mirror\r\n${this.#headers}\r\n`)
    })
  }

  close(): void {
    this.#onEnd = () => {}
    this.#socket.destroy()
  }
}
