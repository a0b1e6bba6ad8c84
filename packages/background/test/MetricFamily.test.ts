import { assert, describe, it } from "@effect/vitest"
import * as MetricFamily from "@spegel-ts/background/MetricFamily"
import { Effect, Metric } from "effect"

const seriesOf = (name: string) =>
  Effect.map(
    Metric.snapshot,
    (metrics) => metrics.flatMap(({ attributes, id, state }) => id === name ? [{ attributes, state }] : [])
  )

describe("MetricFamily", () => {
  it.effect("has one series for each set of labels", () =>
    Effect.gen(function*() {
      const family = MetricFamily.make(Metric.counter("a_total", { incremental: true }))
      assert.strictEqual(family.of({ kind: "one" }), family.of({ kind: "one" }))
      yield* Metric.update(family.of({ kind: "one" }), 2)
      yield* Metric.update(family.of({ kind: "one" }), 3)
      yield* Metric.update(family.of({ kind: "two" }), 4)
      assert.deepStrictEqual(yield* seriesOf("a_total"), [
        { attributes: { kind: "one" }, state: { count: 5, incremental: true } },
        { attributes: { kind: "two" }, state: { count: 4, incremental: true } }
      ])
    }))

  it.effect("has series exist with nothing counted, and leaves alone what was counted", () =>
    Effect.gen(function*() {
      const family = MetricFamily.make(Metric.counter("b_total", { incremental: true }), [{ kind: "a" }, { kind: "b" }])
      yield* Metric.update(family.of({ kind: "b" }), 1)
      yield* MetricFamily.exist(family.known)
      assert.deepStrictEqual(yield* seriesOf("b_total"), [
        { attributes: { kind: "b" }, state: { count: 1, incremental: true } },
        { attributes: { kind: "a" }, state: { count: 0, incremental: true } }
      ])
    }))
})
