import { assert, describe, it } from "@effect/vitest"
import * as Connections from "@spegel-ts/transfer/internal/conformance/Connections"
import { movingOn, receiving, sending, stuck } from "@spegel-ts/transfer/internal/conformance/Trials"
import { type SourceLimits, watch } from "@spegel-ts/transfer/internal/peer/SourceWatch"
import { Progress } from "@spegel-ts/transfer/Progress"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"

const mib = 1024 * 1024

const limits: SourceLimits<string> = {
  stallMillis: 1000,
  stalled: (millis) => `stalled after ${millis >= 1000 ? "enough" : "too little"}`,
  paces: []
}

/** A body whose client waits for its source all the time, on the clock of the test. */
class Waiting {
  silentMillis = 0
  taken = 0
  waitedMillis = 0

  /** Time passes, in which so many bytes come at the end. */
  wait(millis: number, bytes: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.silentMillis += millis
      this.waitedMillis += millis
      return TestClock.adjust(millis)
    }).pipe(Effect.tap(() =>
      Effect.sync(() => {
        this.taken += bytes
        if (bytes > 0) this.silentMillis = 0
      })
    ))
  }
}

describe("SourceWatch", () => {
  it.effect("fails when a source is silent while the client waits", () =>
    Effect.gen(function*() {
      const progress = new Waiting()
      const watching = yield* Effect.forkChild(watch(progress, limits))
      yield* progress.wait(900, 0)
      assert.isUndefined(watching.pollUnsafe())
      yield* progress.wait(300, 0)
      assert.strictEqual(yield* Effect.flip(Fiber.join(watching)), "stalled after enough")
    }))

  it.effect("begins again with each byte", () =>
    Effect.gen(function*() {
      const progress = new Waiting()
      const watching = yield* Effect.forkChild(watch(progress, limits))
      for (let times = 0; times < 20; times++) yield* progress.wait(900, 1)
      assert.isUndefined(watching.pollUnsafe())
      yield* Fiber.interrupt(watching)
    }))

  it.effect("judges the speed at which bytes come while the client waits, window by window", () =>
    Effect.gen(function*() {
      const progress = new Waiting()
      const speeds: Array<number> = []
      const judge = (bytesPerSecond: number) => {
        speeds.push(bytesPerSecond)
        return bytesPerSecond < 1000 ? "slow" : undefined
      }
      const watching = yield* Effect.forkChild(watch(progress, { ...limits, paces: [{ windowMillis: 3000, judge }] }))
      while (speeds.length < 2) yield* progress.wait(500, 1000)
      assert.isTrue(speeds.every((speed) => speed > 1500 && speed <= 2000))
      while (watching.pollUnsafe() === undefined) yield* progress.wait(500, 100)
      assert.strictEqual(yield* Effect.flip(Fiber.join(watching)), "slow")
      assert.isBelow(speeds.at(-1) ?? Infinity, 1000)
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
