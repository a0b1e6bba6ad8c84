import { assert, describe, it } from "@effect/vitest"
import { notice, retire } from "@spegel-ts/spegel/daemon/Retirement"
import { Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"

/** The events so far, at some times after the signal. */
const after = Effect.fnUntraced(function*(delay: Duration.Input, times: ReadonlyArray<Duration.Input>) {
  const done: Array<string> = []
  const note = (what: string) => Effect.sync(() => void done.push(what))
  const fiber = yield* Effect.forkChild(
    retire({ delay: Duration.fromInputUnsafe(delay), unready: note("unready"), leave: note("left") }).pipe(
      Effect.andThen(note("closed"))
    )
  )
  const seen = yield* Effect.forEach(
    times,
    (time) => Effect.andThen(TestClock.adjust(time), Effect.sync(() => done.join(" ")))
  )
  yield* Fiber.join(fiber)
  return seen
})

describe("a mirror that stops", () => {
  it.effect("is not ready at once, and tells its peers shortly before its port closes", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(Duration.toMillis(notice), 1000)
      assert.deepStrictEqual(yield* after("5 seconds", [0, "3999 millis", "1 millis", "999 millis", "1 millis"]), [
        "unready",
        "unready",
        "unready left",
        "unready left",
        "unready left closed"
      ])
    }))

  it.effect("tells them at once where the port closes soon, or at once", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* after("1 second", [0, "1 second"]), ["unready left", "unready left closed"])
      assert.deepStrictEqual(yield* after("400 millis", [0, "400 millis"]), ["unready left", "unready left closed"])
      assert.deepStrictEqual(yield* after(0, [0]), ["unready left closed"])
    }))
})
