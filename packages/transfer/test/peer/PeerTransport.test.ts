import { assert, describe, it } from "@effect/vitest"
import { eventually } from "@spegel-ts/testing/Eventually"
import type { DataPlane } from "@spegel-ts/transfer/DataPlane"
import * as Connections from "@spegel-ts/transfer/internal/conformance/Connections"
import { inOrder } from "@spegel-ts/transfer/internal/peer/ConnectionPool"
import { type ByteSink, PeerTransport, type TransportOptions } from "@spegel-ts/transfer/PeerTransport"
import { Progress } from "@spegel-ts/transfer/Progress"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Context, Duration, Effect, Exit, Fiber, Layer, Result, Scope, Stream } from "effect"
import { randomBytes } from "node:crypto"
import { createServer, type Server, type Socket } from "node:net"

const ok = (body: string | Buffer, ...fields: ReadonlyArray<string>) =>
  Buffer.concat([
    Buffer.from(["HTTP/1.1 200 OK", `content-length: ${body.length}`, ...fields, "", ""].join("\r\n")),
    Buffer.from(body)
  ])

/** A server that answers the n-th request of the n-th connection as told. */
const serve = (address: string, answer: (socket: Socket, connection: number, request: number) => void) =>
  Effect.acquireRelease(
    Effect.callback<{ server: Server; sockets: Set<Socket>; accepted: () => number; port: number }>((resume) => {
      const sockets = new Set<Socket>()
      let accepted = 0
      const server = createServer((socket) => {
        const connection = accepted++
        let request = 0
        sockets.add(socket)
        socket.on("close", () => sockets.delete(socket)).on("error", () => {})
        socket.on("data", () => answer(socket, connection, request++))
      })
      server.listen(0, address, () => {
        const bound = server.address()
        const port = typeof bound === "object" && bound !== null ? bound.port : 0
        resume(Effect.succeed({ server, sockets, accepted: () => accepted, port }))
      })
    }),
    ({ server, sockets }) =>
      Effect.sync(() => {
        sockets.forEach((socket) => socket.destroy())
        server.close()
      })
  )

/** The ways in which a peer stops after a part of its response, each with the error's tag. */
const stoppingAfter = (part: Buffer) =>
  [
    ["PeerDisconnected", (socket: Socket) => socket.end(part)],
    ["PeerStalled", (socket: Socket) => socket.write(part)]
  ] as const

const transport = (
  options?: Partial<TransportOptions> & { readonly plane?: DataPlane["name"] }
) =>
  Effect.map(
    Layer.build(Layer.fresh(
      PeerTransport.layer({ stallTimeout: Duration.millis(300), minPeerSpeed: 0, ...options }).pipe(
        Layer.provide(Transfer.layer({ plane: options?.plane ?? "portable" }))
      )
    )),
    (context) => Context.get(context, PeerTransport)
  )

const collect = () => {
  const chunks: Array<Buffer> = []
  const sink: ByteSink = {
    write: (chunk) => {
      chunks.push(Buffer.from(chunk))
      return true
    }
  }
  return { sink, bytes: () => Buffer.concat(chunks) }
}

const request = (
  peers: typeof PeerTransport.Service,
  port: number,
  addresses: ReadonlyArray<string> = ["127.0.0.2"]
) => peers.request({ method: "GET", url: "/", headers: {}, addresses, port })

const get = (...args: Parameters<typeof request>) =>
  Effect.scoped(Effect.gen(function*() {
    const response = yield* request(...args)
    const { bytes, sink } = collect()
    yield* response.relay(sink)
    return bytes()
  }))

describe("PeerTransport", () => {
  it.live("uses a connection again once its body was read, and only then", () =>
    Effect.gen(function*() {
      const body = Buffer.alloc(3_000_000, "body")
      const { accepted, port } = yield* serve("127.0.0.2", (socket) => socket.write(ok(body)))
      const peers = yield* transport()
      for (let turn = 0; turn < 3; turn++) assert.isTrue((yield* get(peers, port)).equals(body))
      assert.strictEqual(accepted(), 1)
      assert.deepStrictEqual(yield* peers.connections, { open: 1, idle: 1 })

      // Not read to its end.
      yield* Effect.scoped(
        request(peers, port)
      )
      assert.deepStrictEqual(yield* peers.connections, { open: 0, idle: 0 })
      yield* get(peers, port)
      assert.strictEqual(accepted(), 2)
    }))

  it.live("does not take a part for the whole when it is abandoned", () =>
    Effect.gen(function*() {
      const { port } = yield* serve(
        "127.0.0.2",
        (socket) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nnot all")
      )
      const peers = yield* transport()
      const scope = yield* Scope.make()
      const response = yield* Scope.provide(
        request(peers, port),
        scope
      )
      const relaying = yield* Effect.forkChild(Effect.flip(response.relay(collect().sink)), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* Fiber.join(relaying))._tag, "PeerDisconnected")
    }))

  it.live("reads the body of a refusal, so that the connection is kept", () =>
    Effect.gen(function*() {
      const { accepted, port } = yield* serve(
        "127.0.0.2",
        (socket) => socket.write("HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}")
      )
      const peers = yield* transport()
      for (let turn = 0; turn < 3; turn++) {
        const { status } = yield* Effect.scoped(
          request(peers, port)
        )
        assert.strictEqual(status, 404)
      }
      assert.strictEqual(accepted(), 1)
    }))

  it.live("drops an idle connection on unexpected bytes, on its end, and when it is idle for too long", () =>
    Effect.gen(function*() {
      for (
        const after of [
          (socket: Socket) => socket.write("HTTP/1.1 200 OK\r\n"),
          (socket: Socket) => socket.end(),
          (socket: Socket) => socket.resetAndDestroy(),
          undefined
        ]
      ) {
        const { port, sockets } = yield* serve("127.0.0.2", (socket) => socket.write(ok("body")))
        const peers = yield* transport(after === undefined ? { idleMillis: 40 } : {})
        yield* get(peers, port)
        if (after !== undefined) {
          assert.deepStrictEqual(yield* peers.connections, { open: 1, idle: 1 })
          sockets.forEach(after)
        }
        yield* eventually(Effect.map(peers.connections, ({ idle, open }) => open === 0 && idle === 0))
      }
    }))

  it.live("does not keep a connection that sent more than its response, or `connection: close`", () =>
    Effect.gen(function*() {
      for (
        const answer of [
          Buffer.concat([ok("body"), Buffer.from("more")]),
          ok("body", "connection: close"),
          ok("body", "connection: keep-alive, Close")
        ]
      ) {
        const { port } = yield* serve("127.0.0.2", (socket) => socket.write(answer))
        const peers = yield* transport()
        assert.strictEqual(String(yield* get(peers, port)), "body")
        assert.deepStrictEqual(yield* peers.connections, { open: 0, idle: 0 })
      }
    }))

  it.live("asks again on a new connection when an idle one dies under the request, once only", () =>
    Effect.gen(function*() {
      const { accepted, port } = yield* serve("127.0.0.2", (socket, connection, request) => {
        if (request === 1) socket.destroy()
        else if (connection < 2) socket.write(ok(`body ${connection}`))
        else socket.destroy()
      })
      const peers = yield* transport()
      assert.strictEqual(String(yield* get(peers, port)), "body 0")
      assert.strictEqual(String(yield* get(peers, port)), "body 1")
      assert.strictEqual(accepted(), 2)
      const error = yield* Effect.flip(get(peers, port))
      assert.strictEqual(error._tag, "PeerDisconnected")
      assert.strictEqual(accepted(), 3)
    }))

  it.live("does not ask again once a byte of the answer came", () =>
    Effect.gen(function*() {
      const { accepted, port } = yield* serve("127.0.0.2", (socket, _connection, request) => {
        if (request === 0) socket.write(ok("body"))
        else socket.end("HTTP/1.1 2")
      })
      const peers = yield* transport()
      yield* get(peers, port)
      yield* Effect.flip(get(peers, port))
      assert.strictEqual(accepted(), 1)
    }))

  it.live("bounds idle connections", () =>
    Effect.gen(function*() {
      // All are answered once all are here.
      const waiting: Array<Socket> = []
      const { accepted, port } = yield* serve("127.0.0.2", (socket) => {
        if (waiting.push(socket) === 6) waiting.splice(0).forEach((socket) => socket.write(ok("body")))
      })
      const peers = yield* transport({ maxIdlePerPeer: 2 })
      yield* Effect.all(Array.from({ length: 6 }, () => get(peers, port)), { concurrency: "unbounded" })
      assert.strictEqual(accepted(), 6)
      assert.deepStrictEqual(yield* peers.connections, { open: 2, idle: 2 })
      const few = yield* transport({ maxIdle: 1 })
      yield* Effect.all(Array.from({ length: 6 }, () => get(few, port)), { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* few.connections, { open: 1, idle: 1 })
    }))

  it.live("leaves nothing open when it closes, nor when a request is cancelled", () =>
    Effect.gen(function*() {
      const { port, sockets } = yield* serve("127.0.0.2", (socket, _connection, request) => {
        if (request === 0) socket.write(ok("body"))
      })
      const scope = yield* Scope.make()
      const peers = yield* transport().pipe(Scope.provide(scope))
      yield* get(peers, port)
      const pending = yield* Effect.forkChild(Effect.exit(
        request(peers, port).pipe(
          Effect.timeout("20 millis"),
          Effect.scoped
        )
      ))
      yield* Fiber.join(pending)
      assert.deepStrictEqual(yield* peers.connections, { open: 0, idle: 0 })
      yield* get(peers, port)
      yield* Scope.close(scope, Exit.void)
      yield* eventually(() => sockets.size === 0)
    }))

  it.live("tries the next address when one refuses, or takes too long", () =>
    Effect.gen(function*() {
      const { port } = yield* serve("127.0.0.2", (socket) => socket.write(ok("body")))
      const peers = yield* transport()
      // Nothing listens on the first; the second never answers a SYN.
      for (const addresses of [["127.0.0.9", "127.0.0.2"], ["198.51.100.1", "127.0.0.2"], ["::1", "127.0.0.2"]]) {
        assert.strictEqual(String(yield* get(peers, port, addresses)), "body")
      }
      assert.strictEqual((yield* peers.connections).open, 3)
      const error = yield* Effect.flip(get(peers, port, ["127.0.0.8", "127.0.0.9"]))
      assert.strictEqual(error._tag, "PeerUnreachable")
      assert.include(error.message, "ECONNREFUSED")
      assert.deepStrictEqual(inOrder(["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"]), [
        "fd00::1",
        "10.0.0.1",
        "fd00::2",
        "10.0.0.2"
      ])
    }))

  it.live("fails a silence, and a crawl, but not a slow reader", () =>
    Effect.gen(function*() {
      const head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"
      const stalling = yield* serve("127.0.0.2", (socket) => socket.write(`${head}some`))
      const peers = yield* transport()
      assert.strictEqual((yield* Effect.flip(get(peers, stalling.port)))._tag, "PeerStalled")

      const whole = yield* serve("127.0.0.2", (socket) => socket.write(ok(Buffer.alloc(2_000_000))))
      yield* Effect.scoped(Effect.gen(function*() {
        const response = yield* request(peers, whole.port)
        let taken = 0
        const space = Buffer.alloc(500_000)
        yield* response.relay({
          space: () => space,
          write: (chunk, resume) => {
            taken += chunk.length
            setTimeout(resume, taken < 1_000_000 ? 500 : 0)
            return false
          }
        })
        assert.strictEqual(taken, 2_000_000)
      }))
      assert.strictEqual((yield* peers.connections).idle, 1)
    }))

  it.live("leaves a peer that is slower than others", () =>
    Effect.gen(function*() {
      const { port } = yield* serve("127.0.0.2", (socket) => {
        socket.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        const timer = setInterval(() => socket.write("a few"), 20)
        socket.on("close", () => clearInterval(timer))
      })
      const peers = yield* transport({ stallTimeout: Duration.seconds(10) })
      const error = yield* request(peers, port).pipe(
        Effect.flatMap((response) => response.relay(collect().sink, { compare: () => 1_000_000 })),
        Effect.scoped,
        Effect.flip
      )
      assert.deepInclude(error, { _tag: "PeerSlow", othersBytesPerSecond: 1_000_000 })
    }))

  describe("as a stream", () => {
    it.live("gives every byte once, of bodies of any size, and uses the connection again", () =>
      Effect.gen(function*() {
        for (const size of [0, 1, 100_000, 3_000_000]) {
          const body = randomBytes(size)
          const { accepted, port } = yield* serve("127.0.0.2", (socket) => socket.write(ok(body)))
          const peers = yield* transport()
          for (let turn = 0; turn < 3; turn++) {
            const chunks = yield* Effect.scoped(
              Effect.flatMap(request(peers, port), ({ body }) => Stream.runCollect(body))
            )
            assert.isTrue(Buffer.concat(chunks).equals(body))
            assert.isTrue(chunks.every(({ length }) => length > 0 && length <= 256 * 1024))
          }
          assert.strictEqual(accepted(), 1)
          assert.deepStrictEqual(yield* peers.connections, { open: 1, idle: 1 })
        }
      }))

    it.live("reads one chunk ahead of a slow reader, and does not blame the peer", () =>
      Effect.gen(function*() {
        const body = randomBytes(20_000_000)
        let sent = (): number => 0
        const { port } = yield* serve("127.0.0.2", (socket) => {
          sent = () => body.length - socket.writableLength
          socket.write(ok(body))
        })
        const peers = yield* transport()
        yield* Effect.scoped(Effect.gen(function*() {
          const response = yield* request(peers, port)
          // Longer than a peer may be silent.
          yield* Stream.runForEach(Stream.take(response.body, 3), () => Effect.sleep("400 millis"))
          assert.isBelow(sent(), body.length)
        }))
        // The body was not read to its end.
        assert.deepStrictEqual(yield* peers.connections, { open: 0, idle: 0 })
      }))

    it.live("fails with what the peer did, after the bytes that it sent", () =>
      Effect.gen(function*() {
        const body = randomBytes(1_000_000)
        const part = ok(body).subarray(0, 500_000)
        for (const [tag, answer] of stoppingAfter(part)) {
          const { port } = yield* serve("127.0.0.2", answer)
          const peers = yield* transport()
          const chunks: Array<Uint8Array> = []
          const error = yield* request(peers, port).pipe(
            Effect.flatMap((response) =>
              Stream.runForEach(response.body, (chunk) => Effect.sync(() => chunks.push(chunk)))
            ),
            Effect.scoped,
            Effect.flip
          )
          assert.strictEqual(error._tag, tag)
          const got = Buffer.concat(chunks)
          assert.isAbove(got.length, 490_000)
          assert.isTrue(got.equals(body.subarray(0, got.length)))
        }
      }))
  })

  for (const plane of ["zero-copy", "portable"] as const) {
    describe(`to a client (${plane})`, () => {
      const moving = Effect.fnUntraced(function*(peers: typeof PeerTransport.Service, port: number) {
        const { far, near } = yield* Connections.client
        const chunks: Array<Buffer> = []
        far.on("data", (chunk) => chunks.push(chunk)).resume()
        const progress = new Progress()
        const response = yield* request(peers, port)
        const outcome = yield* Effect.result(response.move({ client: { socket: near }, progress }))
        const received = Effect.map(
          eventually(() => Buffer.concat(chunks).length >= progress.moved),
          () => Buffer.concat(chunks)
        )
        return { outcome, progress, received: yield* received }
      }, Effect.scoped)

      it.live("moves bodies of any size, and uses the connection again where nothing follows", () =>
        Effect.gen(function*() {
          for (const size of [0, 1, 100_000, 3_000_000]) {
            const body = randomBytes(size)
            const { accepted, port } = yield* serve("127.0.0.2", (socket) => socket.write(ok(body)))
            const peers = yield* transport({ plane })
            for (let turn = 0; turn < 2; turn++) {
              const { outcome, received } = yield* moving(peers, port)
              assert.isTrue(Result.isSuccess(outcome))
              assert.isTrue(received.equals(body))
            }
            assert.strictEqual(accepted(), 1)
            assert.deepStrictEqual(yield* peers.connections, { open: 1, idle: 1 })
          }
        }))

      it.live("takes nothing that follows a body, nor the connection again", () =>
        Effect.gen(function*() {
          const body = randomBytes(3_000_000)
          const { port } = yield* serve("127.0.0.2", (socket) =>
            socket.write(Buffer.concat([ok(body), Buffer.from("more")])))
          const peers = yield* transport({ plane })
          const { outcome, received } = yield* moving(peers, port)
          assert.isTrue(Result.isSuccess(outcome))
          assert.isTrue(received.equals(body))
          yield* eventually(Effect.map(peers.connections, ({ open }) =>
            open === 0))
        }))

      it.live("tells what the client has where a peer ends early, stalls, or is left", () =>
        Effect.gen(function*() {
          const body = randomBytes(3_000_000)
          const part = ok(body).subarray(0, 2_000_000)
          for (const [tag, answer] of stoppingAfter(part)) {
            const { port } = yield* serve("127.0.0.2", answer)
            const peers = yield* transport({ plane })
            const { outcome, progress, received } = yield* moving(peers, port)
            assert.strictEqual(Result.isFailure(outcome) ? outcome.failure._tag : "none", tag)
            assert.strictEqual(received.length, progress.moved)
            assert.isTrue(received.equals(body.subarray(0, received.length)))
            assert.isAbove(received.length, 1_900_000)
            assert.deepStrictEqual(yield* peers.connections, { open: 0, idle: 0 })
          }
        }))
    })
  }
})
