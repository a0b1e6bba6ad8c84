import { assert, describe, it } from "@effect/vitest"
import { closest, compare, positionOf } from "@spegel-ts/router/kademlia/Distance"
import { ProviderStore } from "@spegel-ts/router/kademlia/ProviderStore"
import { Schema } from "effect"

describe("ProviderStore", () => {
  it("gives who provides a key until the record expires, is withdrawn, or its peer goes", () => {
    const store = new ProviderStore()
    store.add("key", "a", 100)
    store.add("key", "b", 200)
    store.add("key", "a", 150)
    store.add("other", "a", 200)
    assert.deepStrictEqual([store.get("key", 0), store.size], [["a", "b"], 3])
    assert.deepStrictEqual(store.get("key", 150), ["b"])
    store.remove("key", "b")
    assert.deepStrictEqual(store.get("key", 0), ["a"])
    store.removePeer("a")
    assert.deepStrictEqual([store.get("key", 0), store.get("other", 0), store.size], [[], [], 0])
  })

  it("drops what has expired, a few keys at a time", () => {
    const store = new ProviderStore()
    for (let key = 0; key < 100; key++) store.add(String(key), "a", key)
    for (let sweeps = 0; sweeps < 12; sweeps++) store.sweep(50, 10)
    assert.strictEqual(store.size, 49)
  })

  it("bounds what one peer and one key may take", () => {
    const store = new ProviderStore()
    let taken = 0
    for (let key = 0; key < 100_010; key++) taken += store.add(String(key), "greedy", 1e9) ? 1 : 0
    assert.strictEqual(taken, 100_000)
    assert.isTrue(store.add("another", "honest", 1e9))
    for (let peer = 0; peer < 70; peer++) store.add("popular", `peer ${peer}`, 1e9)
    assert.strictEqual(store.get("popular", 0).length, 64)
    assert.include(store.get("popular", 0), "peer 69")
  })
})

describe("Distance", () => {
  it.prop("finds the same as a full sort", [
    Schema.Array(Schema.String),
    Schema.String,
    Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 25 })))
  ], ([
    names,
    target,
    count
  ]) => {
    const position = positionOf(Buffer.from(target))
    const items = [...new Set(names)].map((name) => ({ name, position: positionOf(Buffer.from(name)) }))
    const sorted = items.toSorted((a, b) => compare(position, a.position, b.position)).slice(0, count)
    assert.deepStrictEqual(closest(position, items, count).map(({ name }) => name), sorted.map(({ name }) => name))
  })
})
