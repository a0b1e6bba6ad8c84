import { assert, describe, it } from "@effect/vitest"
import { closest, compare, positionOf } from "@spegel-ts/router/internal/dht/Distance"
import { ProviderStore } from "@spegel-ts/router/internal/dht/records/ProviderStore"
import { Schema } from "effect"
import { key } from "./TestNetwork.ts"

const here = "192.0.2.1"

describe("ProviderStore", () => {
  it("returns the providers of a key until a record expires or is withdrawn, or its peer leaves", () => {
    const store = new ProviderStore(Math.random)
    store.add(key("key"), "a", here, 100)
    store.add(key("key"), "b", here, 200)
    store.add(key("key"), "a", here, 150)
    store.add(key("other"), "a", here, 200)
    assert.deepStrictEqual([store.get(key("key"), 0), store.size], [["a", "b"], 3])
    assert.deepStrictEqual(store.get(key("key"), 150), ["b"])
    store.remove(key("key"), "b")
    assert.deepStrictEqual(store.get(key("key"), 0), ["a"])
    store.removePeer("a")
    assert.deepStrictEqual([store.get(key("key"), 0), store.get(key("other"), 0), store.size], [[], [], 0])
  })

  it("distinguishes keys that are not multihashes", () => {
    const store = new ProviderStore(Math.random)
    store.add(Buffer.from("one"), "a", here, 1)
    store.add(new Uint8Array(), "b", here, 1)
    assert.deepStrictEqual([store.get(Buffer.from("one"), 0), store.get(new Uint8Array(), 0)], [["a"], ["b"]])
  })

  it("drops expired records, a few keys at a time", () => {
    const store = new ProviderStore(Math.random)
    for (let name = 0; name < 100; name++) store.add(key(name), "a", here, name)
    for (let sweeps = 0; sweeps < 12; sweeps++) store.sweep(50, 10)
    assert.strictEqual(store.size, 49)
  })

  it("bounds what one peer and one key may take", () => {
    const store = new ProviderStore(Math.random)
    let taken = 0
    for (let name = 0; name < 100_010; name++) taken += store.add(key(name), "greedy", here, 1e9) ? 1 : 0
    assert.strictEqual(taken, 100_000)
    assert.isTrue(store.add(key("another"), "honest", here, 1e9))
    for (let peer = 0; peer < 70; peer++) store.add(key("popular"), `peer ${peer}`, here, 1e9)
    assert.strictEqual(store.get(key("popular"), 0).length, 64)
    assert.include(store.get(key("popular"), 0), "peer 69")
  })

  it("keeps providers of a key from all addresses if one address has many ids", () => {
    const store = new ProviderStore(Math.random)
    for (let peer = 0; peer < 30; peer++) store.add(key("popular"), `honest ${peer}`, `198.51.100.${peer}`, 1e9)
    for (let peer = 0; peer < 200; peer++) store.add(key("popular"), `identity ${peer}`, here, 1e9)
    const providers = store.get(key("popular"), 0)
    assert.strictEqual(providers.length, 64)
    assert.strictEqual(providers.filter((peer) => peer.startsWith("honest")).length, 30)
    assert.include(providers, "identity 199")
  })

  const names = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 40 })))
  const peers = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 3 })))

  it.prop("does what a map of sets does", [
    Schema.Array(Schema.Tuple([Schema.Literals(["add", "remove", "removePeer"]), names, peers]))
  ], ([steps]) => {
    const store = new ProviderStore(Math.random)
    const model = new Map<number, Set<string>>()
    for (const [step, name, number] of steps) {
      const peer = `peer ${number}`
      if (step === "add") {
        store.add(key(name), peer, here, 10)
        model.set(name, (model.get(name) ?? new Set()).add(peer))
      } else if (step === "remove") {
        store.remove(key(name), peer)
        model.get(name)?.delete(peer)
      } else {
        store.removePeer(peer)
        for (const holders of model.values()) holders.delete(peer)
      }
    }
    for (let name = 0; name <= 40; name++) {
      assert.deepStrictEqual(store.get(key(name), 0).toSorted(), [...model.get(name) ?? []].toSorted())
    }
    assert.strictEqual(store.size, [...model.values()].reduce((sum, holders) => sum + holders.size, 0))
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
