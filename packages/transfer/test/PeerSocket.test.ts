import { assert, describe, it } from "@effect/vitest"
import * as Connections from "@spegel-ts/transfer/internal/conformance/Connections"
import { until } from "@spegel-ts/transfer/internal/conformance/Trials"
import type { PeerSocket, Reader } from "@spegel-ts/transfer/PeerSocket"
import { Effect } from "effect"

/** Keeps what it is given as it is, and answers as it is told. */
class Keeper implements Reader {
  readonly memory = Buffer.alloc(8)
  readonly chunks: Array<Buffer> = []
  ended = false
  readonly #answer: () => boolean

  constructor(answer: () => boolean) {
    this.#answer = answer
  }

  space(): Buffer {
    return this.memory
  }

  onBytes(bytes: Buffer): boolean {
    this.chunks.push(bytes)
    return this.#answer()
  }

  onEnd(): void {
    this.ended = true
  }
}

const started = (reader: (peer: () => PeerSocket) => Keeper) =>
  Effect.map(Connections.peer, ({ peer, remote }) => {
    const keeper = reader(() => peer)
    peer.use(keeper)
    peer.resume()
    return { keeper, peer, remote }
  })

describe("PeerSocket", () => {
  it.live("gives a reader no bytes in the memory of the one before", () =>
    Effect.gen(function*() {
      const { keeper, peer, remote } = yield* started(() => new Keeper(() => false))
      remote.write("one")
      yield* until(() => keeper.chunks.length === 1)
      const next = new Keeper(() => true)
      peer.use(next)
      peer.resume()
      remote.write("two")
      yield* until(() => next.chunks.length === 1)
      keeper.memory.fill("x")
      assert.deepStrictEqual(next.chunks.map(String), ["two"])
      remote.write("three")
      yield* until(() => next.chunks.length === 2)
      assert.strictEqual(next.chunks[1]?.buffer, next.memory.buffer)
    }).pipe(Effect.scoped))

  it.live("continues if `resume` is called during a delivery, whatever that returns", () =>
    Effect.gen(function*() {
      const { keeper, remote } = yield* started((peer) =>
        new Keeper(() => {
          peer().resume()
          return false
        })
      )
      remote.write("one")
      yield* until(() => keeper.chunks.length === 1)
      remote.write("two")
      yield* until(() => keeper.chunks.length === 2)
    }).pipe(Effect.scoped))

  it.live("stops if `pause` is called during a delivery, and is idle from then on", () =>
    Effect.gen(function*() {
      let idle = false
      const { keeper, peer, remote } = yield* started((peer) =>
        new Keeper(() => {
          peer().pause()
          idle = peer().idle
          return true
        })
      )
      remote.write("one")
      yield* until(() => keeper.chunks.length === 1)
      assert.isTrue(idle)
      assert.isTrue(peer.idle)
      yield* Connections.write(remote, Buffer.from("two"))
      // Whatever this turn of the event loop and the next have to read is read by then.
      for (let turn = 0; turn < 4; turn++) yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      assert.strictEqual(keeper.chunks.length, 1)
      peer.resume()
      yield* until(() => keeper.chunks.length === 2)
    }).pipe(Effect.scoped))

  it.live("tells the reader of the end once", () =>
    Effect.gen(function*() {
      const { keeper, peer, remote } = yield* started(() => new Keeper(() => true))
      remote.end()
      yield* until(() => keeper.ended)
      assert.isTrue(peer.ended)
    }).pipe(Effect.scoped))
})
