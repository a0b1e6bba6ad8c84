/**
 * Tries the mover before anybody depends on it: it sends a file over a connection of this process with itself (sendfile(2)),
 * from there over a second one (splice(2)), and compares the bytes.
 */
import { Data, Effect, type Scope } from "effect"
import { once } from "node:events"
import { type FileHandle, open } from "node:fs/promises"
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net"
import type { Body, Moved, TransferError } from "../Body.ts"
import { PeerSocket, type Reader } from "../PeerSocket.ts"
import { Progress } from "../Progress.ts"
import type { Mover } from "./mover/Mover.ts"

/** Zero-copy does not work here. */
export class ZeroCopyUnavailable extends Data.TaggedError("ZeroCopyUnavailable")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

const proofBytes = 1024 * 1024
const proofTime = "5 seconds"

const unavailable = (cause: unknown) =>
  new ZeroCopyUnavailable({ reason: cause instanceof Error ? cause.message : String(cause) })
const attempt = <A>(run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: unavailable })

/** Fails if the mover does not move right bytes within the kernel, within 5 seconds. */
export const prove = (
  mover: Mover,
  move: (body: Body) => Effect.Effect<Moved, TransferError>
): Effect.Effect<void, ZeroCopyUnavailable> =>
  Effect.gen(function*() {
    // Every process can read one file of some size: its own program.
    const handle = yield* Effect.acquireRelease(
      attempt(() => open(process.execPath)),
      (handle) => Effect.promise(() => handle.close())
    )
    const server = yield* Effect.acquireRelease(
      attempt(listen),
      (server) => Effect.promise(() => new Promise((resolve) => server.close(resolve)))
    )
    const { port } = server.address() as AddressInfo
    const peer = yield* Effect.acquireRelease(
      Effect.sync(() => new PeerSocket({ host: "127.0.0.1", port }, deaf)),
      (peer) => Effect.sync(() => peer.destroy())
    )
    const served = yield* accepted(server)
    const receiver = yield* Effect.acquireRelease(
      Effect.sync(() => connect({ host: "127.0.0.1", port })),
      (socket) => Effect.sync(() => socket.destroy())
    )
    const client = yield* accepted(server)
    peer.pause()

    const length = Math.min(proofBytes, (yield* attempt(() => handle.stat())).size)
    const progress = () => new Progress()
    const file = move({
      source: { _tag: "File", handle, offset: 0 },
      client: { socket: served },
      length,
      progress: progress()
    })
    const source = { _tag: "Peer", peer, early: Buffer.alloc(0) } as const
    const relay = move({ source, client: { socket: client }, length, progress: progress() })
    const [received] = yield* Effect.all([receive(receiver, length), file, relay], { concurrency: "unbounded" }).pipe(
      Effect.mapError(unavailable)
    )
    const sent = yield* readStart(handle, length)
    if (!sent.equals(received)) {
      return yield* new ZeroCopyUnavailable({ reason: "the bytes that came were not those sent" })
    }
    if (mover.completed < 2) return yield* new ZeroCopyUnavailable({ reason: "the kernel does not move these bytes" })
  }).pipe(
    Effect.scoped,
    Effect.timeoutOrElse({
      duration: proofTime,
      orElse: () => Effect.fail(new ZeroCopyUnavailable({ reason: `its proof took more than ${proofTime}` }))
    })
  )

const deaf: Reader = { space: () => Buffer.alloc(1), onBytes: () => false, onEnd: () => {} }

const listen = async (): Promise<Server> => {
  const server = createServer()
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return server
}

const accepted = (server: Server): Effect.Effect<Socket, ZeroCopyUnavailable, Scope.Scope> =>
  Effect.acquireRelease(
    attempt(async () => {
      const [socket] = await once(server, "connection") as [Socket]
      socket.on("error", () => {})
      return socket
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

const receive = (socket: Socket, length: number) =>
  Effect.callback<Buffer, ZeroCopyUnavailable>((resume) => {
    const chunks: Array<Buffer> = []
    let left = length
    socket.on("data", (chunk: Buffer) => {
      chunks.push(chunk)
      left -= chunk.length
      if (left <= 0) resume(Effect.succeed(Buffer.concat(chunks)))
    })
    socket.on("close", () => resume(Effect.fail(unavailable("a connection of this process with itself was closed"))))
  })

const readStart = (handle: FileHandle, length: number) =>
  attempt(async () => (await handle.read(Buffer.alloc(length), 0, length, 0)).buffer)
