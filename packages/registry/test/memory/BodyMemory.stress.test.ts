import { assert, describe, it } from "@effect/vitest"
import * as SocketQueues from "@spegel-ts/registry/internal/memory/SocketQueues"
import * as MemoryRouter from "@spegel-ts/router/MemoryRouter"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import * as FileNode from "../FileNode.ts"
import * as RawClient from "../RawClient.ts"

const mib = 1024 ** 2
const budget = 12 * mib
const attackers = ["127.0.0.61", "127.0.0.62", "127.0.0.63"]

/** Waits until the kernel holds at least `least` bytes of a node's answers, or their number does not grow any more; returns it. */
const unsentOf = (port: number, least: number) =>
  Effect.gen(function*() {
    const measure = Effect.sync(() =>
      (SocketQueues.read((local) => local === port) ?? []).reduce((sum, { unsent }) => sum + unsent, 0)
    )
    for (let turn = 0; turn < 100 && (yield* measure) < least; turn++) yield* Effect.sleep("20 millis")
    return yield* measure
  })

describe("memory of bodies", { timeout: 120_000 }, () => {
  it.live("is bounded whatever headers say, leaves honest clients theirs, and does not cut off slow ones", () =>
    Effect.gen(function*() {
      const network = MemoryRouter.network()
      const options = { maxBodyMemory: budget, plane: "portable" as const }
      const holder = yield* FileNode.start(network, "127.0.0.41", [6 * mib], options)
      const mirror = yield* FileNode.start(network, "127.0.0.42", [], options)
      const [blob] = holder.blobs
      if (blob === undefined) return assert.fail("no blob")
      for (const node of [holder, mirror]) {
        const slow = yield* Effect.forEach(
          attackers.flatMap((address) => Array.from({ length: 4 }, (_, index) => ({ address, index }))),
          ({ address, index }) =>
            RawClient.open(
              { host: node.address, port: node.port, localAddress: address },
              blob.path,
              index % 2 === 0 || node === mirror ? [] : ["x-spegel-mirrored: true"]
            ),
          { concurrency: "unbounded" }
        )
        const statuses = yield* Effect.forEach(
          slow,
          ({ head }) => Effect.promise(() => head.then(({ status }) => status))
        )
        assert.deepStrictEqual(new Set(statuses), new Set([200]))
        // Without a bound they would hold 2 to 4 MiB each.
        const unsent = yield* unsentOf(node.port, 2 * mib)
        assert.isAbove(unsent, 2 * mib)
        assert.isAtMost(unsent + slow.length * 64 * 1024, budget)

        const honest = yield* RawClient.open(
          { host: node.address, port: node.port, localAddress: "127.0.0.64" },
          blob.path
        )
        const bodies = yield* Effect.forEach(
          [honest, ...slow.slice(-1)],
          (client) => Effect.promise(() => client.body()),
          { concurrency: "unbounded" }
        )
        for (const body of bodies) {
          assert.strictEqual(createHash("sha256").update(body).digest("hex"), blob.digest.slice(7))
        }
        for (const { socket } of slow) socket.destroy()
      }
    }))

  it.live("is bounded within the kernel too: bodies without memory are refused, an honest client is served", () =>
    Effect.gen(function*() {
      const network = MemoryRouter.network()
      const options = { maxBodyMemory: budget, plane: "zero-copy" as const }
      const holder = yield* FileNode.start(network, "127.0.0.45", [6 * mib], options)
      const mirror = yield* FileNode.start(network, "127.0.0.46", [], options)
      const [blob] = holder.blobs
      if (blob === undefined) return assert.fail("no blob")
      for (const node of [holder, mirror]) {
        const open = (localAddress: string) =>
          RawClient.open({ host: node.address, port: node.port, localAddress }, blob.path)
        const slow = yield* Effect.forEach(Array.from({ length: 40 }), () => open("127.0.0.61"), {
          concurrency: "unbounded"
        })
        const statuses = yield* Effect.forEach(slow, ({ head }) => Effect.promise(() => head))
        const served = slow.filter((_, index) => statuses[index]?.status === 200)
        // Two thirds of 90 %, for a client that is alone.
        const reserved = node === holder ? 320 * 1024 : mib
        assert.isAtMost(served.length, Math.ceil((budget * 0.6) / reserved))
        assert.isAbove(served.length, 5)
        assert.deepStrictEqual(new Set(statuses.map(({ status }) => status)), new Set([200, 404]))
        for (const client of [yield* open("127.0.0.64"), ...served.slice(-1)]) {
          const body = yield* Effect.promise(() => client.body())
          assert.strictEqual(createHash("sha256").update(body).digest("hex"), blob.digest.slice(7))
        }
        for (const { socket } of slow) socket.destroy()
      }
    }))

  it.live("is enough for a node that pulls ninety layers at once and pauses", () =>
    Effect.gen(function*() {
      const holder = yield* FileNode.start(MemoryRouter.network(), "127.0.0.43", [4 * mib])
      const [blob] = holder.blobs
      if (blob === undefined) return assert.fail("no blob")
      const clients = yield* Effect.forEach(
        Array.from({ length: 90 }),
        () => RawClient.open({ host: holder.address, port: holder.port, localAddress: "127.0.0.64" }, blob.path),
        { concurrency: "unbounded" }
      )
      // All have begun, and none has taken more than its head's chunk, as behind a disk that is busy.
      for (const { head } of clients) assert.strictEqual((yield* Effect.promise(() => head)).status, 200)
      const bodies = yield* Effect.forEach(clients, (client) => Effect.promise(() => client.body()), {
        concurrency: "unbounded"
      })
      for (const body of bodies) assert.strictEqual(body.length, blob.bytes.length)
    }))
})
