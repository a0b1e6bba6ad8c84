import { assert, describe, it } from "@effect/vitest"
import { watch } from "@spegel-ts/transfer/ClientWatch"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"

describe("ClientWatch", () => {
  it.effect("gives up a client that takes nothing for the timeout and an eighth", () =>
    Effect.gen(function*() {
      const progress = { moved: 5, silentMillis: 0 }
      const watching = yield* Effect.forkChild(watch(progress, 8000))
      for (let taken = 0; taken < 20; taken++) {
        yield* TestClock.adjust("7 seconds")
        progress.moved++
        yield* TestClock.adjust("1 seconds")
      }
      yield* TestClock.adjust("7 seconds")
      assert.isUndefined(watching.pollUnsafe())
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual((yield* Effect.flip(Fiber.join(watching)))._tag, "ClientGone")
    }))

  it.effect("does not count the time in which the client waits for the source", () =>
    Effect.gen(function*() {
      const progress = { moved: 5, silentMillis: 1 }
      const watching = yield* Effect.forkChild(watch(progress, 8000))
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(watching.pollUnsafe())
      progress.silentMillis = 0
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual((yield* Effect.flip(Fiber.join(watching)))._tag, "ClientGone")
    }))
})
