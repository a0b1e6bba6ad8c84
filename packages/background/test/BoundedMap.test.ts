import { assert, describe, it } from "@effect/vitest"
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import { Tally } from "@spegel-ts/background/Tally"

describe("BoundedMap", () => {
  it("evicts the oldest entry beyond its capacity; setting a key again makes it the newest", () => {
    const map = new BoundedMap<string, number>(2)
    map.set("a", 1).set("b", 2).set("a", 3)
    assert.deepStrictEqual([...map], [["b", 2], ["a", 3]])
    map.set("c", 4)
    assert.deepStrictEqual([...map], [["a", 3], ["c", 4]])
    assert.isUndefined(map.get("b"))
    assert.strictEqual(map.size, 2)
  })
})

describe("Tally", () => {
  it("counts what has begun and not ended", () => {
    const tally = new Tally<string>()
    tally.add("a", 1)
    tally.add("a", 1)
    tally.add("a", -1)
    assert.deepStrictEqual([tally.of("a"), tally.of("b")], [1, 0])
    tally.add("a", -1)
    assert.strictEqual(tally.of("a"), 0)
  })
})
