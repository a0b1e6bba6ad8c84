import { assert, describe, it } from "@effect/vitest"
import * as HttpListener from "@spegel-ts/registry/HttpListener"
import * as MemoryRouter from "@spegel-ts/router/MemoryRouter"
import { random } from "@spegel-ts/testing/SeededRandom"
import { Duration, Effect, Option } from "effect"
import { createHash } from "node:crypto"
import { readdir } from "node:fs/promises"
import { connect, createServer, type Socket } from "node:net"
import * as FileNode from "../FileNode.ts"
import * as RawClient from "../RawClient.ts"

const mib = 1024 ** 2
const openFiles = Effect.promise(async () => (await readdir("/proc/self/fd")).length)

/** Waits until a figure is what it has to be; gives it as it is in the end. */
const eventually = (figure: Effect.Effect<number>, wanted: number) =>
  Effect.gen(function*() {
    for (let turn = 0; turn < 100; turn++) {
      if ((yield* figure) <= wanted) break
      yield* Effect.sleep("20 millis")
    }
    return yield* figure
  })

/** Passes connections on to a peer, and cuts each after some bytes of its answers; counts what it passed on. */
const startProxy = (address: string, port: number, target: { address: string; port: number }, cut: () => number) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly sent: () => number; readonly open: () => number }>((resume) => {
      const sockets = new Set<Socket>()
      let sent = 0
      const server = createServer((client) => {
        let left = cut()
        const upstream = connect({ host: target.address, port: target.port })
        const end = () => {
          client.destroy()
          upstream.destroy()
        }
        sockets.add(client)
        client.on("close", () => sockets.delete(client))
        for (const socket of [client, upstream]) socket.on("error", end).on("close", end)
        client.pipe(upstream)
        upstream.on("data", (chunk) => {
          sent += chunk.length
          left -= chunk.length
          if (left <= 0) return end()
          if (!client.write(chunk)) {
            upstream.pause()
            client.once("drain", () => upstream.resume())
          }
        })
      }).listen(port, address, () => resume(Effect.succeed({ sent: () => sent, open: () => sockets.size })))
      return Effect.sync(() => server.close())
    }),
    () => Effect.void
  )

/** Pulls of large blobs at once: what is opened for good, such as pipes that are kept, is open after it. */
const warm = (nodes: ReadonlyArray<FileNode.FileNode>) =>
  Effect.forEach(
    nodes.flatMap((node) => [node, node, node, node]),
    ({ address, port }) =>
      Effect.scoped(Effect.gen(function*() {
        const client = yield* RawClient.open({ host: address, port }, nodes[0]?.blobs.at(-1)?.path ?? "")
        yield* Effect.promise(() => client.body())
      })),
    { concurrency: "unbounded" }
  )

for (const plane of ["zero-copy", "portable"] as const) {
  describe(`bodies (${plane})`, { timeout: 120_000 }, () => {
    it.live("are right while clients and peers come and go at any byte; nothing is left of them", () =>
      Effect.gen(function*() {
        const { below, pick } = random(20_261_125)
        const network = MemoryRouter.network()
        const holder = yield* FileNode.start(network, "127.0.0.21", [700, 60_000, 5 * mib, 9 * mib + 1], { plane })
        const mirror = yield* FileNode.start(network, "127.0.0.22", [], { plane })
        // The holder is asked through peers that fail, and by itself.
        for (const [index, address] of ["127.0.0.23", "127.0.0.24"].entries()) {
          const id = `proxy-${index}`
          yield* startProxy(address, holder.port, holder, () => 1 + below(20 * mib))
          network.members.set(id, { id, addresses: [address], servicePort: holder.port })
          for (const providers of network.providers.values()) providers.add(id)
        }
        const pull = Effect.fnUntraced(function*(node: typeof mirror, leaves: boolean) {
          const blob = pick(holder.blobs)
          const client = yield* RawClient.open({ host: node.address, port: node.port }, blob.path)
          if (leaves) {
            yield* Effect.sleep(Duration.millis(below(30)))
            client.socket.destroy()
            return "left"
          }
          const body = yield* Effect.promise(() => client.body().catch(() => undefined))
          if (body === undefined) return "cut"
          // A 404 has a body of its own.
          const { status } = yield* Effect.promise(() => client.head)
          if (status !== 200) return "refused"
          assert.strictEqual(createHash("sha256").update(body).digest("hex"), blob.digest.slice(7))
          return "whole"
        }, Effect.scoped)

        yield* warm([holder, mirror])
        const before = yield* openFiles
        const outcomes = yield* Effect.forEach(
          Array.from({ length: 160 }),
          () => pull(pick([mirror, mirror, holder]), below(3) === 0),
          { concurrency: 24 }
        )
        const count = (outcome: string) => outcomes.filter((one) => one === outcome).length
        assert.isAbove(count("whole"), 60)
        assert.isAbove(count("left"), 30)

        for (const node of [mirror, holder]) assert.strictEqual(yield* eventually(node.bodies, 0), 0)
        const idle = Effect.map(mirror.transport.connections, ({ idle, open }) => open - idle)
        assert.strictEqual(yield* eventually(idle, 0), 0)
        // Connections that rest between the mirror, the proxies and the holder have a few ends each in this process.
        const { open } = yield* mirror.transport.connections
        assert.isAtMost(yield* eventually(openFiles, before + 4 * open), before + 4 * open)
      }))

    it.live("move no faster than their reader, up to their end", () =>
      Effect.gen(function*() {
        const network = MemoryRouter.network()
        const holder = yield* FileNode.start(network, "127.0.0.25", [96 * mib], { plane })
        const mirror = yield* FileNode.start(network, "127.0.0.26", [], { plane })
        const { sent } = yield* startProxy("127.0.0.27", holder.port, holder, () => Infinity)
        network.members.set("slow", { id: "slow", addresses: ["127.0.0.27"], servicePort: holder.port })
        for (const providers of network.providers.values()) {
          providers.clear()
          providers.add("slow")
        }
        const [blob] = holder.blobs
        if (blob === undefined) return assert.fail("no blob")
        const client = yield* RawClient.open({ host: mirror.address, port: mirror.port }, blob.path)
        yield* Effect.promise(() => client.head)
        let waiting = -1
        while (waiting !== sent()) {
          waiting = sent()
          yield* Effect.sleep("500 millis")
        }
        // Four sockets' kernel buffers, and one buffer here.
        assert.isBelow(waiting, 64 * mib)
        const body = yield* Effect.promise(() => client.body())
        assert.isTrue(body.equals(blob.bytes))
      }))

    it.live("are right with many of them at once", () =>
      Effect.gen(function*() {
        const network = MemoryRouter.network()
        const holder = yield* FileNode.start(network, "127.0.0.28", [16 * mib], { plane })
        const mirror = yield* FileNode.start(network, "127.0.0.29", [], { plane })
        const [blob] = holder.blobs
        if (blob === undefined) return assert.fail("no blob")
        for (const node of [holder, mirror]) {
          const clients = yield* Effect.forEach(
            // Only the zero-copy data plane bounds the bytes of a peer that the kernel holds.
            Array.from({ length: plane === "zero-copy" ? 18 : 6 }),
            () => RawClient.open({ host: node.address, port: node.port }, blob.path)
          )
          // All of them have begun before any goes on.
          yield* Effect.forEach(clients, ({ head }) => Effect.promise(() => head))
          for (const client of clients) {
            assert.isTrue((yield* Effect.promise(() => client.body())).equals(blob.bytes))
          }
        }
        for (const node of [mirror, holder]) assert.strictEqual(yield* eventually(node.bodies, 0), 0)
      }))

    it.live("are released when their client or their peer goes away in the middle", () =>
      Effect.gen(function*() {
        const network = MemoryRouter.network()
        const holder = yield* FileNode.start(network, "127.0.0.30", [96 * mib], { plane })
        const mirror = yield* FileNode.start(network, "127.0.0.31", [], { plane })
        const [blob] = holder.blobs
        if (blob === undefined) return assert.fail("no blob")
        yield* warm([holder, mirror])
        const resting = (yield* mirror.transport.connections).open
        for (const node of [holder, mirror]) {
          const before = yield* openFiles
          const client = yield* RawClient.open({ host: node.address, port: node.port }, blob.path)
          yield* Effect.promise(() => client.head)
          assert.isAbove(yield* node.bodies, 0)
          client.socket.resetAndDestroy()
          assert.strictEqual(yield* eventually(node.bodies, 0), 0)
          assert.isAtMost(yield* eventually(openFiles, before), before)
          assert.isBelow((yield* mirror.transport.connections).open, resting + 1)
        }
      }))

    it.live("are answered in order when requests are pipelined", () =>
      Effect.gen(function*() {
        const holder = yield* FileNode.start(MemoryRouter.network(), "127.0.0.32", [300_000, 2 * mib, 100], { plane })
        const { socket, ...client } = yield* RawClient.open(
          { host: holder.address, port: holder.port },
          holder.blobs[0]?.path ?? ""
        )
        socket.write(holder.blobs.slice(1).map(({ path }) => RawClient.request(path)).join(""))
        yield* Effect.promise(() => client.head)
        const rest = yield* Effect.callback<Buffer>((resume) => {
          const chunks: Array<Buffer> = []
          socket.on("data", (chunk: Buffer) => {
            chunks.push(chunk)
            const bytes = Buffer.concat(chunks)
            if (bytes.includes(holder.blobs[2]?.bytes ?? "")) resume(Effect.succeed(bytes))
          })
          socket.resume()
        })
        for (const { bytes } of holder.blobs.slice(1)) assert.isAbove(rest.indexOf(bytes), 0)
      }))

    it.live("are given up when their client takes nothing for too long", () =>
      Effect.gen(function*() {
        const { port } = yield* HttpListener.listen({
          host: Option.some("127.0.0.33"),
          port: 0,
          handler: (_request, response) =>
            Effect.callback<void>((resume) => {
              response.write(Buffer.alloc(64 * mib))
              response.once("close", () => resume(Effect.void))
            }),
          grace: Duration.zero,
          clientTimeout: Duration.millis(200)
        })
        const client = yield* RawClient.open({ host: "127.0.0.33", port }, "/")
        yield* Effect.promise(() => client.head.catch(() => undefined))
        const closed = Effect.callback<void>((resume) => {
          client.socket.on("close", () => resume(Effect.void)).resume()
        })
        yield* Effect.sleep("1 second")
        yield* closed
        assert.isBelow(client.socket.bytesRead, 64 * mib)
      }))
  })
}
