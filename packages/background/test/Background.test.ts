import { assert, describe, it } from "@effect/vitest"
import * as Background from "@spegel-ts/background/Background"
import { Cause, Data, Effect, Exit, Logger, Metric, Scope } from "effect"
import { TestClock } from "effect/testing"

class Away extends Data.TaggedError("Away")<{ readonly message: string }> {}

/** Keeps what is logged as `LEVEL message`. */
const recorded = Effect.fnUntraced(
  function*<A, E, R>(program: (logs: ReadonlyArray<string>) => Effect.Effect<A, E, R>) {
    const logs: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      logs.push(`${logLevel} ${String(Array.isArray(message) ? message[0] : message)}`)
    })
    yield* program(logs).pipe(Effect.provide(Logger.layer([logger])))
  }
)

const valueOf = (id: string, task: string) =>
  Effect.map(Metric.snapshot, (metrics) =>
    metrics.flatMap((metric) => {
      if (metric.id !== id || metric.attributes?.["task"] !== task) return []
      return metric.type === "Counter"
        ? [Number(metric.state.count)]
        : metric.type === "Gauge"
        ? [Number(metric.state.value)]
        : []
    })[0])
const failuresOf = (task: string) => valueOf("spegel_background_failures_total", task)
const failingOf = (task: string) => valueOf("spegel_background_failing", task)

/** Work that does what the last entry of `plan` says, once a run; it goes on for ever when there is none left. */
const planned = (plan: Array<Effect.Effect<void, Away>>) => {
  const state = { runs: 0 }
  const work = Effect.suspend(() => {
    state.runs++
    return plan.shift() ?? Effect.never
  })
  return { state, work }
}

const away = Effect.suspend(() => new Away({ message: "it is away" }))
const bug = Effect.sync(() => {
  throw new TypeError("a bug")
})

describe("a background task", () => {
  it.effect("has its series from the start", () =>
    Effect.gen(function*() {
      yield* Background.keepRunning("quiet", Effect.never)
      assert.deepStrictEqual([yield* failuresOf("quiet"), yield* failingOf("quiet")], [0, 0])
    }))

  for (
    const [kind, failure, told] of [
      ["an error", away, "it is away"],
      ["a bug", bug, "a bug"],
      ["an end that should not be", Effect.void, "it has ended"],
      ["an interruption from within", Effect.interrupt, "All fibers interrupted without error"]
    ] as const
  ) {
    it.effect(`starts again after ${kind}, says so once, and that it is well again`, () =>
      recorded(Effect.fnUntraced(function*(logs) {
        const task = `after ${kind}`
        const { state, work } = planned([failure, failure, failure])
        yield* Background.keepRunning(task, work)
        assert.strictEqual(state.runs, 1)
        assert.deepStrictEqual([yield* failuresOf(task), yield* failingOf(task)], [1, 1])
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(state.runs, 4)
        assert.deepStrictEqual([yield* failuresOf(task), yield* failingOf(task)], [3, 1])
        assert.deepStrictEqual(logs, [`Warn ${task} failed: ${told}`])
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(state.runs, 4)
        assert.deepStrictEqual([yield* failuresOf(task), yield* failingOf(task)], [3, 0])
        assert.deepStrictEqual(logs.slice(1), [`Info ${task} works again`])
      })))
  }

  it.effect("is tried less and less often while it fails, but always again", () =>
    Effect.gen(function*() {
      const { state, work } = planned(Array.from({ length: 1000 }, () => bug))
      yield* Background.keepRunning("hopeless", work)
      yield* TestClock.adjust("20 seconds")
      assert.isBelow(state.runs, 10)
      const before = state.runs
      yield* TestClock.adjust("2 minutes")
      assert.isAtLeast(state.runs, before + 10)
      assert.isAtMost(state.runs, before + 15)
    }))

  it.effect("begins with short pauses again when it has worked for a while", () =>
    Effect.gen(function*() {
      const { state, work } = planned([...Array.from({ length: 8 }, () => bug), Effect.sleep("1 hour")])
      yield* Background.keepRunning("seldom", work)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(state.runs, 9)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(state.runs, 10)
    }))

  it.effect("ends when it is done, where it has an end", () =>
    Effect.gen(function*() {
      const { state, work } = planned([away, bug, Effect.void])
      yield* Background.untilDone("once", work)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(state.runs, 3)
      assert.deepStrictEqual([yield* failuresOf("once"), yield* failingOf("once")], [2, 0])
    }))

  it.effect("ends with its scope, also while it pauses", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { state, work } = planned([bug, bug])
      yield* Scope.provide(Background.keepRunning("scoped", work), scope)
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(state.runs, 1)
    }))

  it.effect("says several reasons where it is asked to, each once", () =>
    recorded(Effect.fnUntraced(function*(logs) {
      const { failed, works } = yield* Background.health("talkative", { distinctReasons: 2 })
      for (const reason of ["one", "two", "one", "three"]) yield* failed(Cause.fail(new Away({ message: reason })))
      yield* works
      yield* works
      yield* failed(Cause.fail(new Away({ message: "one" })))
      assert.deepStrictEqual(logs, [
        "Warn talkative failed: one",
        "Warn talkative failed: two",
        "Info talkative works again",
        "Warn talkative failed: one"
      ])
    })))

  it.effect("is a callback too: what it throws goes no further", () =>
    recorded(Effect.fnUntraced(function*(logs) {
      const guard = yield* Background.guard("callback")
      let ran = 0
      guard(() => ran++)
      for (let index = 0; index < 3; index++) {
        guard(() => {
          throw new TypeError("a bug")
        })
      }
      assert.strictEqual(ran, 1)
      assert.deepStrictEqual([yield* failuresOf("callback"), yield* failingOf("callback")], [3, 1])
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* failingOf("callback"), 0)
      assert.deepStrictEqual(logs, ["Warn callback failed: a bug", "Info callback works again"])
    })))
})
