import { assert, describe, it } from "@effect/vitest"
import { ClientSink, sent } from "@spegel-ts/transfer/ClientSink"
import * as Connections from "@spegel-ts/transfer/internal/conformance/Connections"
import { until } from "@spegel-ts/transfer/internal/conformance/Trials"
import { Progress } from "@spegel-ts/transfer/Progress"
import { Effect, Fiber } from "effect"
import { randomBytes } from "node:crypto"
import type { Socket } from "node:net"

const kib = 1024

/** Room that the test gives out, and that is used up. */
class Room {
  left: number
  readonly #waiting: Array<{ readonly bytes: number; readonly resume: () => void }> = []

  constructor(left: number) {
    this.left = left
  }

  hasRoom(bytes: number): boolean {
    if (bytes > this.left) return false
    this.left -= bytes
    return true
  }

  whenRoom(bytes: number, resume: () => void): void {
    this.#waiting.push({ bytes, resume })
  }

  get waits(): number {
    return this.#waiting.length
  }

  give(bytes: number): void {
    this.left += bytes
    for (const { bytes, resume } of this.#waiting.splice(0)) {
      this.left -= bytes
      resume()
    }
  }
}

const collect = (socket: Socket) => {
  const chunks: Array<Buffer> = []
  socket.on("data", (chunk) => chunks.push(chunk)).resume()
  return () => Buffer.concat(chunks)
}

/** A client for which there is no room, and what it has received. */
const crowded = Effect.gen(function*() {
  const { far, near } = yield* Connections.client
  const room = new Room(0)
  const progress = new Progress()
  return { near, received: collect(far), room, progress, sink: new ClientSink({ socket: near, room }, progress) }
})

describe("ClientSink", () => {
  it.live("sends a chunk in pieces while there is little room, each once there is some", () =>
    Effect.gen(function*() {
      const { progress, received, room, sink } = yield* crowded
      const bytes = randomBytes(150 * kib)
      const sending = yield* Effect.forkChild(sent(sink, bytes))
      yield* until(() => room.waits === 1)
      assert.strictEqual(progress.moved, 0)
      room.give(64 * kib)
      yield* until(() => room.waits === 1)
      assert.strictEqual(progress.moved, 64 * kib)
      room.give(200 * kib)
      yield* Fiber.join(sending)
      assert.strictEqual(progress.moved, bytes.length)
      yield* until(() => received().length === bytes.length)
      assert.isTrue(received().equals(bytes))
    }).pipe(Effect.scoped))

  it.live("sends nothing more once it is stopped, and tells the waiting caller", () =>
    Effect.gen(function*() {
      const { near, progress, received, room, sink } = yield* crowded
      const outcome = sink.send(randomBytes(150 * kib))
      sink.stop()
      assert.isFalse(yield* Effect.promise(() => outcome))
      room.give(1000 * kib)
      near.end("end")
      yield* until(() => received().length > 0)
      assert.strictEqual(String(received()), "end")
      assert.strictEqual(progress.moved, 0)
    }).pipe(Effect.scoped))

  it.live("tells the caller when it is stopped after a piece that the kernel took at once", () =>
    Effect.gen(function*() {
      const { progress, room, sink } = yield* crowded
      const outcome = sink.send(randomBytes(150 * kib))
      room.give(64 * kib)
      assert.strictEqual(progress.moved, 64 * kib)
      sink.stop()
      assert.isFalse(yield* Effect.promise(() => outcome))
    }).pipe(Effect.scoped))
})
