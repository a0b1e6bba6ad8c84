/** Connections of this process with itself, both ends of each: those of a client and of a peer. */
import { Effect, type Scope } from "effect"
import { once } from "node:events"
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net"
import { PeerSocket, type Reader } from "../../PeerSocket.ts"

const listening = Effect.acquireRelease(
  Effect.promise(async () => {
    // As with Node's HTTP server: when a client closes its half, Node closes the other one.
    const server = createServer({ noDelay: true })
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    return server
  }),
  (server) => Effect.promise(() => new Promise((resolve) => server.close(resolve)))
)

const accept = async (server: Server): Promise<Socket> => {
  const [socket] = await once(server, "connection") as [Socket]
  return socket.on("error", () => {})
}

const closing = (socket: { readonly destroy: () => unknown }) => Effect.sync(() => void socket.destroy())

/** A client: `near` is what a body is moved to, `far` its own end. */
export const client: Effect.Effect<{ readonly near: Socket; readonly far: Socket }, never, Scope.Scope> = Effect.gen(
  function*() {
    const server = yield* listening
    const { port } = server.address() as AddressInfo
    const accepted = accept(server)
    const far = yield* Effect.acquireRelease(
      Effect.sync(() => connect({ host: "127.0.0.1", port }).on("error", () => {}).pause()),
      closing
    )
    const near = yield* Effect.acquireRelease(Effect.promise(() => accepted), closing)
    near.resume()
    return { near, far }
  }
)

/** Reads a head: keeps its bytes until it has enough. */
class HeadReader implements Reader {
  readonly #space = Buffer.allocUnsafeSlow(16 * 1024)
  #bytes = Buffer.alloc(0)
  #wanted = 0
  #onEnough: (() => void) | undefined

  space(): Buffer {
    return this.#space
  }

  onBytes(bytes: Buffer): boolean {
    this.#bytes = Buffer.concat([this.#bytes, bytes])
    if (this.#bytes.length < this.#wanted) return true
    this.#onEnough?.()
    this.#onEnough = undefined
    return false
  }

  onEnd(): void {
    this.#onEnough?.()
  }

  /** Reads at least this many bytes; returns all that came. */
  read(peer: PeerSocket, wanted: number): Promise<Buffer> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wanted = wanted
    this.#onEnough = resolve
    if (this.#bytes.length >= wanted) resolve()
    else peer.resume()
    return promise.then(() => {
      const bytes = this.#bytes
      this.#bytes = Buffer.alloc(0)
      return bytes
    })
  }
}

/** A peer: bodies are moved from `peer`, and `remote` is its own end; `early` reads the bytes that come with a head. */
export const peer: Effect.Effect<
  { readonly peer: PeerSocket; readonly remote: Socket; readonly early: (wanted: number) => Effect.Effect<Buffer> },
  never,
  Scope.Scope
> = Effect.gen(function*() {
  const server = yield* listening
  const { port } = server.address() as AddressInfo
  const accepted = accept(server)
  const head = new HeadReader()
  const peer = yield* Effect.acquireRelease(
    Effect.sync(() => new PeerSocket({ host: "127.0.0.1", port }, head)),
    closing
  )
  const remote = yield* Effect.acquireRelease(Effect.promise(() => accepted), closing)
  return { peer, remote, early: (wanted) => Effect.promise(() => head.read(peer, wanted)) }
})

/** Compares the bytes that a client gets with those that it should get. */
export class Receiver {
  readonly #socket: Socket
  readonly #expected: Buffer
  readonly #waiting = new Set<{ readonly bytes: number; readonly resolve: () => void }>()
  bytes = 0
  /** True while every byte so far was right. */
  right = true
  /** How the connection ended, if it did. */
  ended: "FIN" | "RST" | undefined

  /** `expected` begins with the head. Reads at once. */
  constructor(socket: Socket, expected: Buffer) {
    this.#socket = socket
    this.#expected = expected
    socket.on("data", (chunk: Buffer) => {
      this.right &&= chunk.equals(expected.subarray(this.bytes, this.bytes + chunk.length))
      this.bytes += chunk.length
      this.#tell()
    })
    socket.on("end", () => this.#end("FIN"))
    socket.on("error", () => this.#end("RST"))
    socket.on("close", () => this.#end("FIN"))
    socket.resume()
  }

  /** True once everything came, all of it right, and nothing else. */
  get whole(): boolean {
    return this.right && this.bytes === this.#expected.length
  }

  /** Waits until this many bytes came, or no more can. */
  received(bytes: number): Effect.Effect<void> {
    return Effect.callback((resume) => {
      if (this.bytes >= bytes || this.ended !== undefined) return resume(Effect.void)
      const waiting = { bytes, resolve: () => resume(Effect.void) }
      this.#waiting.add(waiting)
      return Effect.sync(() => this.#waiting.delete(waiting))
    })
  }

  get all(): Effect.Effect<void> {
    return this.received(this.#expected.length)
  }

  get end(): Effect.Effect<void> {
    return this.received(Infinity)
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  #end(how: "FIN" | "RST"): void {
    this.ended ??= how
    this.#tell()
  }

  #tell(): void {
    for (const waiting of this.#waiting) {
      if (this.bytes < waiting.bytes && this.ended === undefined) continue
      this.#waiting.delete(waiting)
      waiting.resolve()
    }
  }
}

/** Writes to a socket. Ends when the kernel has all bytes, or the connection is closed. */
export const write = (socket: Socket, bytes: Buffer): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const done = () => resume(Effect.void)
    if (socket.destroyed) return done()
    socket.once("close", done)
    socket.write(bytes, done)
    return Effect.sync(() => socket.off("close", done))
  })
