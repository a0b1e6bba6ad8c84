import { assert, describe, it } from "@effect/vitest"
import { pieceSize } from "@spegel-ts/transfer/ClientSink"
import * as Buffers from "@spegel-ts/transfer/internal/Buffers"
import * as Connections from "@spegel-ts/transfer/internal/conformance/Connections"
import { sending } from "@spegel-ts/transfer/internal/conformance/Trials"
import { Progress } from "@spegel-ts/transfer/Progress"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect } from "effect"
import { EventEmitter } from "node:events"
import type { Socket } from "node:net"

const mib = 1024 * 1024

/** A client whose kernel takes each chunk at once, or a turn later. */
class FakeClient extends EventEmitter {
  readonly destroyed = false
  writableLength = 0
  readonly #atOnce: boolean
  readonly #onChunk: (bytes: number) => void

  constructor(atOnce: boolean, onChunk: (bytes: number) => void) {
    super()
    this.#atOnce = atOnce
    this.#onChunk = onChunk
  }

  cork() {}

  uncork() {}

  write(chunk: Buffer, done: () => void) {
    this.#onChunk(chunk.length)
    this.writableLength = this.#atOnce ? 0 : chunk.length
    setImmediate(() => {
      this.writableLength = 0
      done()
    })
  }
}

/** The buffer that the next stream of the portable layer would get, to see that nobody else writes to it. */
const spareBuffer = Effect.acquireRelease(
  Effect.sync(() => Buffers.acquire(Infinity)),
  (buffer) => Effect.sync(() => Buffers.release(buffer, true))
)

const relay = Effect.fnUntraced(
  function*(peer: Effect.Success<typeof Connections.peer>, length: number, client: FakeClient) {
    const { move } = yield* Transfer
    const source = yield* sending(peer, { offset: 0, length })
    const socket = client as unknown as Socket
    return yield* move({ source, client: { socket }, length, progress: new Progress() })
  }
)

describe("the portable layer", () => {
  it("gives a few streams a large buffer, and each further one a piece, as bodies count", () => {
    const few = Array.from({ length: Buffers.maxLarge }, () => Buffers.acquire(Infinity))
    const further = [Buffers.acquire(Infinity), Buffers.acquire(1000)]
    const [first, second, ...others] = few
    assert.isTrue(few.every(({ length }) => length === first?.length && length > pieceSize))
    assert.deepStrictEqual(further.map(({ length }) => length), [pieceSize, 1000])
    for (const buffer of [first, second]) if (buffer !== undefined) Buffers.release(buffer, buffer === first)
    // One that is in use yet is made anew.
    const again = [Buffers.acquire(Infinity), Buffers.acquire(Infinity), Buffers.acquire(Infinity)]
    assert.strictEqual(again[0], first)
    assert.notStrictEqual(again[1], second)
    assert.deepStrictEqual(again.map(({ length }) => length), [first?.length, first?.length, pieceSize])
    for (const buffer of [...others, ...again]) Buffers.release(buffer, true)
  })

  it.live("reads nothing into a buffer that was given back", () =>
    Effect.gen(function*() {
      const peer = yield* Connections.peer
      yield* relay(peer, mib, new FakeClient(false, () => {}))
      const buffer = yield* spareBuffer
      buffer.fill(0)
      yield* Connections.write(peer.remote, Buffer.alloc(5000, "x"))
      assert.strictEqual((yield* peer.early(5000)).toString(), "x".repeat(5000))
      assert.isTrue(buffer.every((byte) => byte === 0))
    }).pipe(Effect.scoped, Effect.provide(Transfer.layerPortable)))

  it.live("gives others their turn, however fast both sides are", () =>
    Effect.gen(function*() {
      let inTurn = 0
      let most = 0
      let turns = 0
      const tick = () => {
        most = Math.max(most, inTurn)
        if (inTurn > 0) turns++
        inTurn = 0
        ticking = setImmediate(tick)
      }
      let ticking = setImmediate(tick)
      yield* Effect.addFinalizer(() => Effect.sync(() => clearImmediate(ticking)))
      yield* relay(yield* Connections.peer, 12 * mib, new FakeClient(true, (bytes) => inTurn += bytes))
      assert.isAtMost(most, 2 * mib)
      // It was so fast that it could have taken more.
      assert.isAtLeast(most, mib)
      assert.isAtLeast(turns, 6)
    }).pipe(Effect.scoped, Effect.provide(Transfer.layerPortable)))
})
