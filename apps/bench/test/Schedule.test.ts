import { assert, describe, it } from "@effect/vitest"
import * as Schedule from "@spegel-ts/bench/schedules/Schedule"

const make = (seed: number) => Schedule.make({ seed, nodes: 5, upstreamSpeed: 10_000_000 })
const many = Array.from({ length: 300 }, (_, index) => make(index + 1))

describe("Schedule", () => {
  it("follows from its seed", () => {
    assert.deepStrictEqual(make(7), make(7))
    assert.strictEqual(
      new Set(many.map(({ events, layerSizes, starts }) => JSON.stringify([events, layerSizes, starts]))).size,
      many.length
    )
  })

  it("strikes every node in every way", () => {
    const events = many.flatMap(({ events }) => events)
    const struck = new Set(events.map(({ kind, node }) => `${kind} ${node}`))
    assert.strictEqual(struck.size, 5 * Schedule.kinds.length)
    for (const { at } of events) assert.isTrue(at >= 0 && at < 5000)
  })

  it("uses the whole range of sizes, numbers of events, and both clients", () => {
    const sizes = new Set(many.map(({ layerSizes }) => (layerSizes[1] ?? 0) / 1024 ** 2))
    assert.deepStrictEqual(
      [...sizes].toSorted((one, other) => one - other),
      Array.from({ length: 17 }, (_, i) => 8 + i)
    )
    assert.deepStrictEqual(new Set(many.map(({ events }) => events.length)), new Set([1, 2, 3]))
    assert.deepStrictEqual(
      new Set(many.flatMap(({ starts }) => starts.map(({ client }) => client))),
      new Set(["ctr", "CRI"])
    )
  })
})
