import { assert, describe, it } from "@effect/vitest"
import { closest, compare, positionOf } from "@spegel-ts/router/internal/dht/Distance"
import { ProviderStore } from "@spegel-ts/router/internal/dht/records/ProviderStore"
import { Schema } from "effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { key } from "./TestNetwork.ts"

const here = "192.0.2.1"

/** A store that many ids of one address have filled, each with less than its share. */
const filled = () => {
  const store = new ProviderStore(Math.random)
  for (let peer = 0; peer < 5; peer++) {
    for (let name = 0; name < 90_000; name++) store.add(key(`${peer} ${name}`), `identity ${peer}`, here, 1e9)
  }
  assert.strictEqual(store.size, 400_000)
  return store
}

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

  it("stores the records of honest peers when it is full, and keeps them while others go on filling it", () => {
    const store = filled()
    const honest = Array.from({ length: 40 }, (_, peer) => ({ peer: `honest ${peer}`, address: `198.51.100.${peer}` }))
    const provided = honest.flatMap(({ peer, address }) =>
      Array.from({ length: 100 }, (_, name) => ({ peer, address, key: key(`${peer} ${name}`) }))
    )
    for (const { address, key, peer } of provided) assert.isTrue(store.add(key, peer, address, 1e9))
    for (let name = 0; name < 20_000; name++) store.add(key(`more ${name}`), "identity 6", here, 1e9)
    for (const { key, peer } of provided) assert.deepStrictEqual(store.get(key, 0), [peer])
    assert.strictEqual(store.size, 400_000)
    // The address with the most records makes room, not the oldest one.
    for (const { peer } of honest) store.removePeer(peer)
    assert.strictEqual(store.size, 396_000)
  })

  it("keeps the records of peers with few of them if all have one address", () => {
    const store = filled()
    for (let name = 0; name < 100; name++) store.add(key(`honest ${name}`), "honest", here, 1e9)
    for (let name = 0; name < 90_000; name++) store.add(key(`more ${name}`), "identity 6", here, 1e9)
    for (let name = 0; name < 100; name++) assert.deepStrictEqual(store.get(key(`honest ${name}`), 0), ["honest"])
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

  it("holds 200,000 records of as many keys in less than 12 MiB", async () => {
    setFlagsFromString("--expose-gc")
    const collect = runInNewContext("gc") as () => void
    const memory = async () => {
      // The memory of arrays is freed a little after their collection.
      for (let round = 0; round < 5; round++) {
        collect()
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
      const { arrayBuffers, heapUsed } = process.memoryUsage()
      return heapUsed + arrayBuffers
    }
    const before = await memory()
    const store = new ProviderStore(Math.random)
    for (let name = 0; name < 200_000; name++) store.add(key(name), `peer ${name % 40}`, here, 1e9)
    const mebibytes = (await memory() - before) / 2 ** 20
    assert.strictEqual(store.size, 200_000)
    assert.isBelow(mebibytes, 12)
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
