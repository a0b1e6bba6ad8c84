/** A registry with one image that misbehaves as it is told, and counts what it was asked for and what it sent. */
import {
  createServer,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type Server,
  type ServerResponse
} from "node:http"
import type { Socket } from "node:net"
import type { Sign } from "./AnswerSignature.ts"
import { clockChanges, type Fault, kindOf, type RequestKind, requestKinds } from "./Fault.ts"

/** One object of the image: what it is, and its bytes. */
export interface ServedObject {
  readonly digest: string
  readonly mediaType: string
  readonly bytes: Uint8Array
}

/** A fault, and the requests that meet it. */
export interface Misbehaviour {
  readonly fault: Fault
  /** The requests that meet the fault; all others are answered correctly. */
  readonly kind: RequestKind
}

/** Totals since the start. */
export interface Counts {
  readonly requests: number
  /** Requests that met the fault, or that can no longer be made because of it. */
  readonly faulty: number
  /** Body bytes that were written to sockets. */
  readonly bytes: number
}

export interface FaultServerOptions {
  readonly host: string
  readonly port: number
  /** Manifest first; the tag, whatever its name, points to it. */
  readonly objects: ReadonlyArray<ServedObject>
  /** Undefined for a good peer. */
  readonly misbehaviour?: Misbehaviour | undefined
  readonly happenings: Happenings
  /** Signs the heads of answers. Default: they are not signed. */
  readonly sign?: Sign
}

/** Events elsewhere, in the middle of a body. */
export interface Happenings {
  /** Takes the machine off the network. */
  readonly vanish: () => void
  /** Stops the other peer that has the image, which keeps its connections. */
  readonly freezeOther: () => void
  /** Sets the clock of the node that asks. */
  readonly changeClock: (millis: number) => void
}

/** No event elsewhere. */
export const none: Happenings = { vanish: () => {}, freezeOther: () => {}, changeClock: () => {} }

const slowBytesPerSecond = 100_000
const slowTickMillis = 50
const excess = Buffer.alloc(1000)
/** How long a peer that was killed takes to be back. */
const downMillis = 300
/** How long an event elsewhere may take. */
const settleMillis = 50

type ScriptedFault = Exclude<
  Fault,
  | "404"
  | "500"
  | "503"
  | "refuse"
  | "never answer"
  | "headers then nothing"
  | "wrong Content-Type"
  | "slow 100 KB/s"
  | "clock back 1 h"
  | "clock on 1 d"
>

const ofHeads: ReadonlySet<Fault> = new Set(["404", "500", "503", "refuse", "never answer", "wrong Content-Type"])

/** Whether the fault is in the body, so that an answer without one is right. */
const isOfBody = (fault: Fault): boolean => !ofHeads.has(fault)

/** How an answer goes wrong: the header that says how long it is, the bytes that are sent, and how it ends. */
interface Script {
  readonly contentLength: number
  readonly body: Uint8Array
  readonly end: (socket: Socket) => void
}

/** A server of one image; `start` before use, and `stop` it at the end. */
export class FaultServer {
  readonly #options: FaultServerOptions
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  readonly #timers = new Set<NodeJS.Timeout>()
  #requests = 0
  #faulty = 0
  #bytes = 0
  #restarted = false

  constructor(options: FaultServerOptions) {
    this.#options = options
    this.#server = createServer((request, response) => this.#answer(request, response))
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket)
      socket.on("error", () => {})
      socket.once("close", () => this.#sockets.delete(socket))
    })
  }

  get counts(): Counts {
    return { requests: this.#requests, faulty: this.#faulty, bytes: this.#bytes }
  }

  async start(): Promise<void> {
    const { host, misbehaviour, port } = this.#options
    if (misbehaviour?.fault === "refuse" && misbehaviour.kind === requestKinds[0]) {
      this.#faulty++
      return
    }
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject)
      this.#server.listen(port, host, resolve)
    })
  }

  /** Ends all connections as a process that is killed does, and takes new ones when it has been started again. */
  #restart(): void {
    const { host, port } = this.#options
    this.#restarted = true
    this.#server.close()
    for (const socket of this.#sockets) socket.resetAndDestroy()
    this.#after(downMillis, () => this.#server.listen(port, host))
  }

  #after(millis: number, run: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      run()
    }, millis)
    this.#timers.add(timer)
  }

  /** Takes no more connections, and ends those that there are. */
  stop(): void {
    this.#server.close()
    for (const timer of this.#timers) clearTimeout(timer)
    for (const socket of this.#sockets) socket.destroy()
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    this.#requests++
    const { misbehaviour, objects } = this.#options
    const path = new URL(request.url ?? "", "http://peer").pathname
    const name = path.slice(path.lastIndexOf("/") + 1)
    const object = name.startsWith("sha256:") ? objects.find(({ digest }) => digest === name) : objects[0]
    if (object === undefined) return this.#answerStatus(request, response, 404)
    const kind = kindOf(path, object.bytes.length)
    if (kind !== misbehaviour?.kind) {
      if (misbehaviour?.fault === "refuse" && kind === requestKinds[requestKinds.indexOf(misbehaviour.kind) - 1]) {
        response.once("finish", () => {
          this.#faulty++
          // The answer may still be on its way: its connection stays.
          this.#server.close()
          this.#server.closeIdleConnections()
        })
      }
      return this.#answerWell(request, response, object)
    }
    const { fault } = misbehaviour
    // A HEAD does not meet a fault of the body, and a peer that was killed once is well again.
    if ((request.method === "HEAD" && isOfBody(fault)) || this.#restarted) {
      return this.#answerWell(request, response, object)
    }
    this.#faulty++
    this.#misbehave(fault, request, response, object)
  }

  #sign(request: IncomingMessage, status: number, headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
    return this.#options.sign?.(request, status, headers) ?? headers
  }

  #writeHead(request: IncomingMessage, response: ServerResponse, status: number, headers: OutgoingHttpHeaders): void {
    response.writeHead(status, this.#sign(request, status, headers))
  }

  #answerStatus(request: IncomingMessage, response: ServerResponse, status: number): void {
    const body = JSON.stringify({ errors: [{ code: "UNKNOWN", message: "a fault that was asked for" }] })
    this.#writeHead(request, response, status, { "content-type": "application/json", "content-length": body.length })
    response.end(body)
  }

  #answerWell(request: IncomingMessage, response: ServerResponse, object: ServedObject): void {
    const { bytes } = object
    const start = startOf(request)
    const body = bytes.subarray(start)
    this.#writeHead(request, response, start > 0 ? 206 : 200, {
      ...headersOf(object),
      "content-length": body.length,
      ...(start > 0 ? { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` } : {})
    })
    if (request.method === "HEAD") return void response.end()
    this.#send(response, body, () => response.end())
  }

  #misbehave(fault: Fault, request: IncomingMessage, response: ServerResponse, object: ServedObject): void {
    switch (fault) {
      case "404":
      case "500":
      case "503":
        return this.#answerStatus(request, response, Number(fault))
      case "refuse":
        // The connection was made before: it is too late to refuse it.
        return void request.socket.destroy()
      case "never answer":
        return
      case "headers then nothing":
        this.#writeHead(request, response, 200, { ...headersOf(object), "content-length": object.bytes.length })
        return response.flushHeaders()
      case "wrong Content-Type":
        this.#writeHead(request, response, 200, {
          ...headersOf(object),
          "content-type": "text/html",
          "content-length": object.bytes.length
        })
        return this.#send(response, object.bytes, () => response.end())
      case "slow 100 KB/s":
        this.#writeHead(request, response, 200, { ...headersOf(object), "content-length": object.bytes.length })
        return this.#sendSlowly(response, object.bytes)
      case "clock back 1 h":
      case "clock on 1 d":
        this.#writeHead(request, response, 200, { ...headersOf(object), "content-length": object.bytes.length })
        return this.#sendOverClockChange(response, object.bytes, clockChanges[fault] ?? 0)
      default: {
        const { body, contentLength, end } = this.#scriptOf(fault, object.bytes)
        // Written by hand: Node's server would not send another length than it was told.
        const { socket } = request
        const head = this.#sign(request, 200, { ...headersOf(object), "content-length": String(contentLength) })
        socket.write(
          `HTTP/1.1 200 OK\r\n${
            Object.entries(head).map(([key, value]) => `${key}: ${String(value)}\r\n`).join("")
          }\r\n`
        )
        this.#send(socket, body, () => end(socket))
      }
    }
  }

  #scriptOf(fault: ScriptedFault, bytes: Uint8Array): Script {
    const whole = { contentLength: bytes.length, body: bytes, end: () => {} }
    const half = { ...whole, body: bytes.subarray(0, Math.floor(bytes.length / 2)) }
    switch (fault) {
      case "reset mid-body":
        return { ...half, end: (socket) => socket.resetAndDestroy() }
      case "FIN mid-body":
        return { ...half, end: (socket) => socket.end() }
      case "stall mid-body":
        return half
      case "vanish":
        return { ...half, end: () => this.#options.happenings.vanish() }
      case "restart beside a freeze":
        return {
          ...half,
          end: () => {
            this.#options.happenings.freezeOther()
            this.#restart()
          }
        }
      case "wrong bytes": {
        const wrong = Uint8Array.from(bytes)
        const middle = Math.floor(bytes.length / 2)
        wrong[middle] = (wrong[middle] ?? 0) ^ 1
        return { ...whole, body: wrong }
      }
      case "short body": {
        const body = bytes.subarray(0, Math.floor(bytes.length * 0.75))
        return { ...whole, body, contentLength: body.length }
      }
      case "long body":
        return { ...whole, body: Buffer.concat([bytes, excess]), contentLength: bytes.length + excess.length }
      case "wrong Content-Length":
        return { ...whole, contentLength: half.body.length }
    }
  }

  /** Writes to a socket or a response; `then` runs once the kernel has all of it. */
  #send(to: Socket | ServerResponse, bytes: Uint8Array, then: () => void): void {
    to.write(bytes, (error) => {
      if (error !== null && error !== undefined) return
      this.#bytes += bytes.length
      then()
    })
  }

  #sendOverClockChange(response: ServerResponse, bytes: Uint8Array, millis: number): void {
    const half = Math.floor(bytes.length / 2)
    this.#send(response, bytes.subarray(0, half), () => {
      this.#options.happenings.changeClock(millis)
      this.#after(settleMillis, () => this.#send(response, bytes.subarray(half), () => response.end()))
    })
  }

  #sendSlowly(response: ServerResponse, bytes: Uint8Array): void {
    const piece = (slowBytesPerSecond * slowTickMillis) / 1000
    let sent = 0
    const sendPiece = () => {
      const next = bytes.subarray(sent, sent + piece)
      sent += next.length
      this.#bytes += next.length
      response.write(next)
      if (sent < bytes.length) return
      stop()
      response.end()
    }
    const timer = setInterval(sendPiece, slowTickMillis)
    const stop = () => {
      clearInterval(timer)
      this.#timers.delete(timer)
    }
    this.#timers.add(timer)
    response.once("close", stop)
    // The first byte is not late.
    sendPiece()
  }
}

/** First byte asked for by `Range: bytes=N-`. */
const startOf = (request: IncomingMessage): number =>
  Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0)

const headersOf = ({ digest, mediaType }: ServedObject) => ({
  "content-type": mediaType,
  "docker-content-digest": digest
})
