import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MemoryRouter from "@spegel-ts/router/MemoryRouter"
import { Effect } from "effect"
import { connect, type Socket } from "node:net"
import * as RawClient from "../RawClient.ts"
import { startNode } from "../TestNode.ts"

interface Client {
  readonly socket: Socket
  readonly isOpen: () => boolean
  /** The status of the next answer; undefined where the connection ends before. */
  readonly ask: (path: string, fields?: ReadonlyArray<string>) => Effect.Effect<number | undefined>
}

/** A connected client that says nothing until it is told to. */
const open = (node: { readonly address: string; readonly port: number }, localAddress: string) =>
  Effect.acquireRelease(
    Effect.callback<Client>((resume) => {
      const socket = connect({ host: node.address, port: node.port, localAddress })
      let isOpen = true
      socket.on("error", () => {}).on("close", () => isOpen = false)
      const ask: Client["ask"] = (path, fields) =>
        Effect.callback((resume) => {
          let answer = ""
          const onClose = () => resume(Effect.undefined)
          const onData = (chunk: Buffer) => {
            answer += chunk.toString("latin1")
            if (!answer.includes("\r\n\r\n")) return
            socket.off("data", onData).off("close", onClose)
            resume(Effect.succeed(Number(answer.slice(9, 12))))
          }
          if (!isOpen) return onClose()
          socket.on("data", onData).once("close", onClose).write(RawClient.request(path, fields))
        })
      socket.once("connect", () => resume(Effect.succeed({ socket, isOpen: () => isOpen, ask })))
      socket.resume()
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

/** Waits for a state of things. */
const until = (what: string, holds: () => boolean) =>
  Effect.gen(function*() {
    for (let turn = 0; turn < 500 && !holds(); turn++) yield* Effect.sleep("10 millis")
    assert.isTrue(holds(), what)
  })

const countOpen = (clients: ReadonlyArray<Client>) => clients.filter(({ isOpen }) => isOpen()).length
const attacker = "127.0.0.66"
const honest = "127.0.0.67"
const blob = Buffer.alloc(48 * 1024 * 1024, "busy")
const blobPath = `/v2/team/app/blobs/${Digest.ofBytes(blob)}?ns=registry.example`

describe("connections", () => {
  const start = (connections: { readonly all: number; readonly ofAddress: number }) =>
    startNode(MemoryRouter.network(), "127.0.0.2", { connections })
  const openMany = (node: Effect.Success<ReturnType<typeof start>>, count: number, address: string) =>
    Effect.forEach(Array.from({ length: count }), () => open(node, address))

  it.live("of one address are bounded; the newest replace those idle for longest", () =>
    Effect.gen(function*() {
      const node = yield* start({ all: 100, ofAddress: 4 })
      const clients = yield* openMany(node, 4, attacker)
      // It has been of use since the others came.
      assert.strictEqual(yield* clients[0]?.ask("/v2/") ?? Effect.undefined, 200)
      const other = yield* open(node, honest)
      clients.push(...yield* openMany(node, 2, attacker))
      yield* until("two have made room", () => countOpen(clients) === 4)
      assert.deepStrictEqual(clients.map(({ isOpen }) => isOpen()), [true, false, false, true, true, true])
      assert.strictEqual(yield* other.ask("/v2/"), 200)
      for (const client of clients.slice(3)) assert.strictEqual(yield* client.ask("/livez"), 200)
    }))

  it.live("of all are bounded; the address that has most makes room", () =>
    Effect.gen(function*() {
      const node = yield* start({ all: 10, ofAddress: 8 })
      // The honest ones have been idle for longest, and are few.
      const few = yield* openMany(node, 2, honest)
      const many = yield* openMany(node, 8, attacker)
      const newcomers = yield* openMany(node, 3, "127.0.0.68")
      yield* until("three have made room", () => countOpen(many) === 5)
      for (const client of [...few, ...newcomers]) assert.strictEqual(yield* client.ask("/livez"), 200)
      assert.strictEqual(countOpen(many), 5)
    }))

  it.live("that are all busy leave room for probes, and to tell others", () =>
    Effect.gen(function*() {
      const node = yield* start({ all: 100, ofAddress: 2 })
      yield* node.content.put(blob)
      const busy = yield* openMany(node, 2, attacker)
      for (const client of busy) {
        assert.strictEqual(yield* client.ask(blobPath), 200)
        client.socket.pause()
      }
      for (const probe of ["/livez", "/readyz"]) {
        const client = yield* open(node, attacker)
        assert.strictEqual(yield* client.ask(probe), 200)
        yield* until("it has had its answer", () => !client.isOpen())
      }
      assert.strictEqual(yield* (yield* open(node, attacker)).ask("/v2/"), 404)
      assert.strictEqual(yield* (yield* open(node, attacker)).ask("/v2/", ["x-spegel-mirrored: true"]), 503)
      assert.strictEqual(countOpen(busy), 2)
      // However many come and say nothing.
      const silent = yield* openMany(node, 200, attacker)
      assert.strictEqual(yield* (yield* open(node, attacker)).ask("/livez"), 200)
      yield* until("few of them are kept", () => countOpen(silent) <= 64)
      assert.strictEqual(countOpen(busy), 2)
      busy[0]?.socket.destroy()
      yield* until("a place is free", () => countOpen(busy) === 1)
      const next = yield* open(node, attacker)
      assert.strictEqual(yield* next.ask("/v2/"), 200)
      assert.isTrue(next.isOpen())
    }))

  it.live("with too many pipelined requests are closed", () =>
    Effect.gen(function*() {
      const node = yield* start({ all: 100, ofAddress: 100 })
      yield* node.content.put(blob)
      const behindBody = Effect.fnUntraced(function*(requests: number) {
        const client = yield* open(node, attacker)
        assert.strictEqual(yield* client.ask(blobPath), 200)
        client.socket.pause().write(RawClient.request("/v2/").repeat(requests))
        return client
      })
      const [few, many] = [yield* behindBody(100), yield* behindBody(200)]
      // By now both were read.
      assert.strictEqual(yield* (yield* open(node, attacker)).ask("/v2/"), 200)
      many.socket.resume()
      yield* until("one is closed", () => !many.isOpen())
      assert.isBelow(many.socket.bytesRead, blob.length)
      few.socket.resume()
      yield* until("the other gets everything", () => few.socket.bytesRead > blob.length)
      assert.isTrue(few.isOpen())
    }))
})
