/** Stores as full as they get. */
import { assert, describe, it } from "@effect/vitest"
import { ProviderStore } from "@spegel-ts/router/internal/dht/records/ProviderStore"
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
})
