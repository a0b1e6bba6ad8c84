import { assert, describe, it } from "@effect/vitest"
import * as Sources from "@spegel-ts/bench/schedules/Sources"

const taken = (by: string, from: string, start: number, end: number, content = "layer"): Sources.Taken => ({
  content,
  by,
  from,
  start,
  end
})
const remembers = new Set<string>()

const nodesOf = (...all: ReadonlyArray<Sources.Taken>) => Sources.rings(all, remembers).map(({ nodes }) => nodes)

describe("Sources", () => {
  it("finds a node that took its own bytes", () => {
    assert.deepStrictEqual(nodesOf(taken("a", "a", 0, 10)), [["a"]])
    assert.deepStrictEqual(Sources.rings([taken("a", "a", 0, 10)], new Set(["a"])).length, 1)
  })

  it("finds bytes that came back by way of others, once", () => {
    assert.deepStrictEqual(nodesOf(taken("a", "b", 0, 10), taken("b", "a", 5, 15)), [["a", "b"]])
    assert.deepStrictEqual(
      nodesOf(taken("c", "a", 0, 10), taken("a", "b", 2, 8), taken("b", "c", 0, 4), taken("d", "a", 0, 10)),
      [["a", "b", "c"]]
    )
  })

  it("finds none where the bytes are others, or of another content", () => {
    assert.deepStrictEqual(nodesOf(taken("a", "b", 0, 10), taken("b", "a", 10, 20)), [])
    assert.deepStrictEqual(nodesOf(taken("a", "b", 0, 10), taken("b", "a", 0, 10, "config")), [])
    assert.deepStrictEqual(nodesOf(taken("a", "b", 0, 4), taken("b", "c", 0, 10), taken("c", "a", 4, 10)), [])
  })

  it("lets a node that lost its bytes take them again", () => {
    assert.deepStrictEqual(Sources.rings([taken("a", "b", 0, 10), taken("b", "a", 0, 10)], new Set(["b"])), [])
  })
})
