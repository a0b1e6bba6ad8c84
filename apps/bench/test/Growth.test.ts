import { assert, describe, it } from "@effect/vitest"
import * as Growth from "@spegel-ts/bench/soak/Growth"

const windows = { settle: 10, window: 5 }
const megabyte = 1e6

/** A process with a reading each second, `seconds` long. */
const process = (pid: number, seconds: number, at: (second: number) => Pick<Growth.Reading, "descriptors" | "rss">) =>
  Array.from({ length: seconds }, (_, second): Growth.Reading => ({
    node: "node-1",
    pid,
    seconds: 100 + second,
    ...at(second)
  }))

describe("Growth", () => {
  it("compares a settled process with its end", () => {
    const grown = Growth.of(
      process(1, 60, (second) => ({ rss: (second < 10 ? 1 : 100 + second) * megabyte, descriptors: 40 + second })),
      windows
    )
    assert.deepStrictEqual(grown, [{
      node: "node-1",
      seconds: 44,
      rss: [112 * megabyte, 157 * megabyte],
      descriptors: [50, 95]
    }])
    assert.closeTo(Growth.memory(grown), 45 / 112, 1e-9)
    assert.strictEqual(Growth.descriptors(grown), 45)
  })

  it("does not take connections of a pull for growth", () => {
    const readings = process(1, 60, (second) => ({ rss: megabyte, descriptors: second > 50 && second % 2 ? 90 : 40 }))
    assert.strictEqual(Growth.descriptors(Growth.of(readings, windows)), 0)
  })

  it("judges the worst of several processes, and none that lived for a short time", () => {
    const flat = process(1, 60, () => ({ rss: megabyte, descriptors: 40 }))
    const growing = process(2, 60, (second) => ({ rss: megabyte * (1 + second), descriptors: 40 }))
    const short = process(3, 20, (second) => ({ rss: megabyte * (1 + second), descriptors: 40 + second }))
    assert.lengthOf(Growth.of([...flat, ...growing, ...short], windows), 2)
    assert.isAbove(Growth.memory(Growth.of([...flat, ...growing], windows)), 1)
    assert.strictEqual(Growth.memory(Growth.of(flat, windows)), 0)
  })
})
