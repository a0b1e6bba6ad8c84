import { assert, describe, it } from "@effect/vitest"
import { random } from "@spegel-ts/testing/SeededRandom"
import { Exchange } from "@spegel-ts/transfer/internal/peer/Exchange"
import { type ByteSink, PeerTransport } from "@spegel-ts/transfer/PeerTransport"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Context, Duration, Effect, Layer, Result } from "effect"
import { readdirSync } from "node:fs"
import { createServer } from "node:net"

const { below, pick } = random(20_261_125)

/** A response that a peer could send: mostly right, with one or more things wrong. */
const makeResponse = (): Buffer => {
  const body = Buffer.from(Array.from({ length: below(300) }, () => 65 + below(26)))
  const lines = [
    pick(["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 206 Partial Content", "HTTP/1.1 404 Not Found"]),
    `content-length: ${pick([body.length, body.length, body.length, body.length, below(400)])}`,
    "content-type: application/octet-stream"
  ]
  const spoil: ReadonlyArray<() => void> = [
    () =>
      lines[0] = pick([
        "HTTP/1.0 200 OK",
        "HTTP/1.1 100 Continue",
        "HTTP/1.1 101 X",
        "HTTP/1.1 2000 OK",
        "",
        "ICY 200"
      ]),
    () => lines.unshift(...Array.from({ length: 1 + below(40) }, () => "HTTP/1.1 103 Early Hints\r\n")),
    () => lines.push("transfer-encoding: chunked"),
    () =>
      lines.push(pick(["Transfer-Encoding : chunked", "transfer-encoding:\tchunked", "transfer_encoding: chunked"])),
    () => lines.push(`content-length: ${below(400)}`),
    () =>
      lines[1] = pick([
        "content-length: -1",
        "content-length: +5",
        "content-length: 0x10",
        "content-length: 5, 5",
        "content-length: 1e3",
        "content-length:",
        "content-length : 7",
        "x: y",
        "content-length: 99999999999999999999"
      ]),
    () => lines.push(`content-encoding: ${pick(["gzip", "identity", "GZIP", "br"])}`),
    () => lines.push(" folded: yes"),
    () => lines.push(`x: ${"y".repeat(below(40_000))}`),
    () => lines.push(...Array.from({ length: below(2000) }, (_, index) => `x-${index}: y`)),
    () => lines.push("location: http://127.0.0.9/"),
    () => lines.push("connection: close")
  ]
  for (let times = below(3); times > 0; times--) pick(spoil)()
  const bytes = Buffer.concat([
    Buffer.from(`${lines.join(pick(["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r"]))}\r\n\r\n`, "latin1"),
    body,
    // A second response, or anything, behind the first.
    pick([
      Buffer.alloc(0),
      Buffer.alloc(0),
      Buffer.from("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond"),
      Buffer.alloc(below(900), "z")
    ])
  ])
  if (below(3) === 0) { for (let times = 1 + below(4); times > 0; times--) bytes[below(bytes.length)] = below(256) }
  return below(6) === 0 ? bytes.subarray(0, below(bytes.length)) : bytes
}

/**
 * The most that a strict reader would pass on, written without a look at the one under test: nothing unless the head is
 * beyond doubt, then as many bytes as its one Content-Length says.
 */
const allowed = (bytes: Buffer): Buffer => {
  const none = Buffer.alloc(0)
  const text = bytes.toString("latin1")
  const end = text.indexOf("\r\n\r\n")
  if (end === -1 || end + 4 > 16 * 1024) return none
  const [status = "", ...fields] = text.slice(0, end).split("\r\n")
  if (!/^HTTP\/1\.1 [2-5]\d\d( |$)/.test(status)) return none
  if (fields.some((field) => !/^[^\s:]+:/.test(field) || /[\r\n\0]/.test(field))) return none
  const named = (name: string) => fields.filter((field) => field.toLowerCase().startsWith(`${name}:`))
  if (named("transfer-encoding").length > 0) return none
  if (named("content-encoding").some((field) => !/: *identity *$/i.test(field))) return none
  const [length, ...more] = named("content-length")
  const size = /^content-length:[ \t]*(\d+)[ \t]*$/i.exec(length ?? "")?.[1]
  if (size === undefined || more.length > 0) return none
  return bytes.subarray(end + 4, end + 4 + Number(size))
}

describe("responses of peers", { timeout: 300_000 }, () => {
  it("100,000 mutated ones, cut anywhere: nothing is passed on that the framing does not allow", () => {
    const shared = Buffer.alloc(64 * 1024)
    let whole = 0
    let refused = 0
    for (let turn = 0; turn < 100_000; turn++) {
      const bytes = makeResponse()
      const passed: Array<Buffer> = []
      const waiting: Array<() => void> = []
      const wire = { open: true, flowing: true }
      const outcomes: Array<"whole" | "failed"> = []
      // Some sinks say where they want their bytes.
      const memory = below(2) === 0 ? Buffer.alloc(200_000) : undefined
      const sink: ByteSink = {
        ...(memory === undefined ? {} : { space: () => memory }),
        write: (chunk, resume) => {
          const taken = below(2) === 0
          const go = () => {
            passed.push(Buffer.from(chunk))
            if (!taken) resume()
          }
          if (taken) go()
          else waiting.push(go)
          return taken
        }
      }
      const exchange = new Exchange(
        { peer: "a", bodiless: false },
        {
          resume: () => wire.flowing = true,
          done: () => wire.open = false,
          destroy: () => wire.open = false
        },
        (head) => {
          if (Result.isFailure(head)) outcomes.push("failed")
          else exchange.relay(sink, (failure) => outcomes.push(failure === undefined ? "whole" : "failed"))
        }
      )
      let position = 0
      let into: Buffer = shared
      while (wire.open && position < bytes.length) {
        if (!wire.flowing) {
          const resume = waiting.shift()
          if (resume === undefined) break
          resume()
          continue
        }
        const size = Math.min(into.length, bytes.length - position, 1 + below(pick([3, 100, 70_000])))
        bytes.copy(into, 0, position, position + size)
        position += size
        wire.flowing = exchange.onBytes(into.subarray(0, size))
        // The memory that it was read into is used for the next connection's bytes.
        if (into === shared) shared.fill(0)
        into = exchange.nextBuffer() ?? shared
      }
      for (let resume = waiting.shift(); resume !== undefined; resume = waiting.shift()) resume()
      if (wire.open) exchange.onClosed(undefined)
      exchange.abandon()

      const got = Buffer.concat(passed)
      const limit = allowed(bytes)
      const context = () => `turn ${turn}: ${JSON.stringify(bytes.toString("latin1").slice(0, 400))}`
      assert.isTrue(limit.subarray(0, got.length).equals(got), context())
      // One end, and one only.
      assert.strictEqual(outcomes.length, 1, context())
      if (outcomes[0] === "whole") {
        whole++
        const size = Number(/^content-length:[ \t]*(\d+)/im.exec(bytes.toString("latin1"))?.[1])
        assert.strictEqual(got.length, size, context())
      } else refused++
    }
    assert.isAbove(whole, 20_000)
    assert.isAbove(refused, 20_000)
  })

  it.live("3,000 mutated ones over sockets, some abandoned: no socket and no file is left", () =>
    Effect.gen(function*() {
      const files = () => readdirSync("/proc/self/fd").length
      const before = files()
      yield* Effect.scoped(Effect.gen(function*() {
        const server = yield* Effect.acquireRelease(
          Effect.callback<ReturnType<typeof createServer>>((resume) => {
            const server = createServer((socket) => {
              socket.on("error", () => {})
              socket.on("data", () => {
                const bytes = makeResponse()
                if (below(2) === 0) socket.write(bytes)
                else if (below(10) === 0) socket.resetAndDestroy()
                else socket.end(bytes)
              })
            }).listen(0, "127.0.0.2", () => resume(Effect.succeed(server)))
          }),
          (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
        )
        const bound = server.address()
        const port = typeof bound === "object" && bound !== null ? bound.port : 0
        const transport = Context.get(
          yield* Layer.build(
            PeerTransport.layer({ stallTimeout: Duration.millis(20), minPeerSpeed: 0 }).pipe(
              Layer.provide(Transfer.layerPortable)
            )
          ),
          PeerTransport
        )
        const ask = Effect.scoped(Effect.flatMap(
          transport.request({ method: "GET", url: "/", headers: {}, addresses: ["127.0.0.2"], port }),
          ({ relay }) => relay({ write: () => true })
        )).pipe(Effect.timeoutOption("50 millis"), Effect.ignore)
        yield* Effect.forEach(Array.from({ length: 3000 }), () => ask, { concurrency: 16, discard: true })
        const { idle, open } = yield* transport.connections
        assert.strictEqual(open, idle)
        assert.isAtMost(open, 8)
      }))
      yield* Effect.sleep("100 millis")
      assert.isAtMost(files(), before)
    }))
})
