import { assert, describe, it } from "@effect/vitest"
import { Progress } from "@spegel-ts/transfer/Progress"
import { type SourceLimits, watch } from "@spegel-ts/transfer/SourceWatch"
import * as Connections from "@spegel-ts/transfer/testkit/Connections"
import { movingOn, receiving, sending, stuck, until } from "@spegel-ts/transfer/testkit/Trials"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect, Fiber } from "effect"

const mib = 1024 * 1024

const limits: SourceLimits<string> = {
  stallMillis: 80,
  stalled: (millis) => `stalled after ${millis >= 80 ? "enough" : "too little"}`,
  paces: []
}

describe("SourceWatch", () => {
  it.live("fails when a source is silent while the client waits", () =>
    Effect.gen(function*() {
      const progress = new Progress()
      progress.waits()
      assert.strictEqual(yield* Effect.flip(watch(progress, limits)), "stalled after enough")
    }))

  it.live("begins anew with each byte", () =>
    Effect.gen(function*() {
      const progress = new Progress()
      const watching = yield* Effect.forkChild(watch(progress, limits))
      for (let times = 0; times < 20; times++) {
        progress.waits()
        yield* until(() => progress.silentMillis > 15)
        progress.take(1)
      }
      assert.isAbove(progress.waitedMillis, 2 * limits.stallMillis)
      assert.isUndefined(watching.pollUnsafe())
      yield* Fiber.interrupt(watching)
    }))

  it.live("judges the speed at which bytes come while the client waits, window by window", () =>
    Effect.gen(function*() {
      const progress = new Progress()
      const speeds: Array<number> = []
      const judge = (bytesPerSecond: number) => {
        speeds.push(bytesPerSecond)
        return bytesPerSecond < 10_000 ? "slow" : undefined
      }
      const watching = yield* Effect.forkChild(
        watch(progress, { ...limits, paces: [{ windowMillis: 50, judge }] })
      )
      const step = function*(bytes: number) {
        progress.waits()
        yield* until(() => progress.silentMillis > 10)
        progress.take(bytes)
      }
      while (speeds.length === 0) yield* step(10_000)
      assert.isUndefined(watching.pollUnsafe())
      while (watching.pollUnsafe() === undefined) yield* step(1)
      assert.strictEqual(yield* Effect.flip(Fiber.join(watching)), "slow")
      assert.isAbove(speeds[0] ?? 0, 10_000)
      assert.isBelow(speeds.at(-1) ?? Infinity, 10_000)
    }))

  for (const [name, layer] of [["portable", Transfer.layerPortable], ["zero-copy", Transfer.layerZeroCopy]] as const) {
    it.live(`leaves a peer that stalls at the byte reached, and none whose client is slow (${name})`, () =>
      Effect.gen(function*() {
        const part = { offset: 0, length: 11 * mib }
        const client = yield* Connections.client
        yield* Connections.write(client.near, Buffer.from("HTTP/1.1 200 OK\r\n\r\n"))
        const receiver = receiving(client, part)
        receiver.pause()
        const progress = new Progress()
        const peer = yield* Connections.peer
        const source = yield* sending(peer, { offset: 0, length: 10 * mib })
        const running = yield* Effect.forkChild(
          Effect.raceFirst(movingOn(client, source, part.length, progress), watch(progress, limits))
        )
        yield* stuck(progress)
        assert.isUndefined(running.pollUnsafe())
        receiver.resume()
        assert.strictEqual(yield* Effect.flip(Fiber.join(running)), "stalled after enough")
        assert.strictEqual(progress.moved, 10 * mib)
        const rest = { offset: 10 * mib, length: mib }
        yield* movingOn(client, yield* sending(yield* Connections.peer, rest), rest.length, progress)
        yield* receiver.all
        assert.isTrue(receiver.whole)
      }).pipe(Effect.scoped, Effect.provide(layer)))
  }
})
