/**
 * The least HTTP that bodies need around `Transfer`, as a server of its own: serves the files of a folder, or relays what a
 * peer has, by the data plane that is named.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import type { Source } from "@spegel-ts/transfer/Body"
import { PeerSocket } from "@spegel-ts/transfer/PeerSocket"
import { Progress } from "@spegel-ts/transfer/Progress"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect, Layer, type Scope } from "effect"
import { open } from "node:fs/promises"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"

const [, , kind = "", plane = "", host = "", port = "", source = ""] = process.argv

interface Opened {
  readonly source: Source
  readonly length: number
  /** The body came to its end, and the source may be used again. */
  readonly done: () => void
}

const openFile = Effect.fnUntraced(function*(path: string): Effect.fn.Return<Opened, never, Scope.Scope> {
  const handle = yield* Effect.acquireRelease(
    Effect.promise(() => open(source + path)),
    (handle) => Effect.promise(() => handle.close())
  )
  const { size } = yield* Effect.promise(() => handle.stat())
  return { source: { _tag: "File", handle, offset: 0 }, length: size, done: () => {} }
})

/** A connection to the peer, and what reads the heads of its answers. */
class Upstream {
  readonly peer: PeerSocket
  readonly #space = Buffer.allocUnsafeSlow(16 * 1024)
  #onHead: ((head: string, early: Buffer) => void) | undefined

  constructor() {
    const { hostname, port } = new URL(source)
    this.peer = new PeerSocket({ host: hostname, port: Number(port) }, {
      space: () => this.#space,
      onBytes: (bytes) => {
        // The heads of the servers measured here come whole, with some of the body.
        const end = bytes.indexOf("\r\n\r\n") + 4
        this.#onHead?.(bytes.toString("latin1", 0, end), Buffer.from(bytes.subarray(end)))
        return false
      },
      onEnd: () => {}
    })
  }

  ask(path: string): Effect.Effect<{ readonly length: number; readonly early: Buffer }> {
    return Effect.callback((resume) => {
      this.#onHead = (head, early) =>
        resume(Effect.succeed({ length: Number(/^content-length: (\d+)/im.exec(head)?.[1]), early }))
      this.peer.socket.write(`GET ${path} HTTP/1.1\r\nhost: peer\r\n\r\n`)
      this.peer.resume()
    })
  }
}

const resting: Array<Upstream> = []

const openPeer = Effect.fnUntraced(function*(path: string): Effect.fn.Return<Opened, never, Scope.Scope> {
  const upstream = resting.pop() ?? new Upstream()
  let whole = false
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      if (whole && !upstream.peer.ended) resting.push(upstream)
      else upstream.peer.destroy()
    })
  )
  const { early, length } = yield* upstream.ask(path)
  return { source: { _tag: "Peer", peer: upstream.peer, early }, length, done: () => whole = true }
})

const answer = Effect.fnUntraced(
  function*(request: IncomingMessage, response: ServerResponse) {
    const transfer = yield* Transfer
    const path = request.url?.split("?")[0] ?? ""
    const opened = yield* kind === "serve" ? openFile(path) : openPeer(path)
    response.writeHead(200, { "content-length": opened.length })
    yield* transfer.move({
      source: opened.source,
      client: { socket: request.socket, begin: () => response.flushHeaders() },
      length: opened.length,
      progress: new Progress()
    })
    opened.done()
    response.end()
  },
  Effect.scoped,
  (answering) => Effect.ignoreCause(answering)
)

const serving = Effect.gen(function*() {
  const run = Effect.runForkWith(yield* Effect.context<Transfer>())
  createServer({ noDelay: true, keepAliveTimeout: 65_000 }, (request, response) => {
    const begin = () => void run(answer(request, response))
    // The answer before may not have given the connection back yet.
    if (response.socket === null) response.once("socket", begin)
    else begin()
  }).listen(Number(port), host)
})

NodeRuntime.runMain(Layer.launch(
  Layer.effectDiscard(serving).pipe(
    Layer.provide(plane === "portable" ? Transfer.layerPortable : Transfer.layerZeroCopy)
  )
))
