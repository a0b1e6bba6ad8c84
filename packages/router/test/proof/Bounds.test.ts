import { assert, describe, it } from "@effect/vitest"
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import { FailureLog } from "@spegel-ts/router/internal/proof/FailureLog"
import { PendingConnections } from "@spegel-ts/router/internal/proof/PendingConnections"
import * as ProofNews from "@spegel-ts/router/internal/proof/ProofNews"
import { ProvedIds } from "@spegel-ts/router/internal/proof/ProvedIds"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { Effect, Logger } from "effect"
import { TestClock } from "effect/testing"

describe("PendingConnections", () => {
  const pending = () => {
    const dropped: Array<string> = []
    const connections = new PendingConnections<{ readonly address: string; readonly name: string }>(({ name }) =>
      void dropped.push(name)
    )
    return { dropped, add: (name: string, address: string) => connections.add({ name, address }), connections }
  }

  it("drops the oldest of an address that has too many", () => {
    const { add, dropped } = pending()
    add("other", "10.0.0.1")
    for (let index = 0; index < 66; index++) add(`${index}`, "10.0.0.66")
    assert.deepStrictEqual(dropped, ["0", "1"])
  })

  it("drops the oldest of all when there are too many", () => {
    const { add, dropped } = pending()
    for (let index = 0; index < 130; index++) add(`${index}`, `10.0.0.${index}`)
    assert.deepStrictEqual(dropped, ["0", "1"])
  })

  it("has room again for connections that have proved something", () => {
    const { connections, dropped } = pending()
    for (let index = 0; index < 1000; index++) {
      const entry = { name: `${index}`, address: "10.0.0.1" }
      connections.add(entry)
      connections.delete(entry)
    }
    assert.deepStrictEqual(dropped, [])
  })
})

describe("ProvedIds", () => {
  const ring = ringOf(generate())
  const keyId = ring.current("router").id
  const hour = 3_600_000

  it("remembers an id for an hour after its last connection, and while it has one", () => {
    const ids = new ProvedIds()
    ids.add("a", keyId, 0)
    assert.isTrue(ids.has("a", ring, hour - 1, false))
    assert.isFalse(ids.has("a", ring, hour, false))
    assert.isTrue(ids.has("a", ring, 5 * hour, true))
    ids.ended("a", 5 * hour)
    assert.isTrue(ids.has("a", ring, 6 * hour - 1, false))
    assert.isFalse(ids.has("b", ring, 0, true))
  })

  it("forgets an id that has said goodbye, although its connection ends after that", () => {
    const ids = new ProvedIds()
    ids.add("a", keyId, 0)
    ids.forget("a")
    ids.ended("a", 1)
    assert.isFalse(ids.has("a", ring, 1, true))
  })

  it("forgets proofs of a key that is no longer in use", () => {
    const ids = new ProvedIds()
    ids.add("a", keyId, 0)
    assert.isFalse(ids.has("a", ringOf(generate()), 0, true))
  })

  it("remembers ten thousand ids", () => {
    const ids = new ProvedIds()
    for (let index = 0; index <= 10_000; index++) ids.add(`${index}`, keyId, 0)
    assert.isFalse(ids.has("0", ring, 0, true))
    assert.isTrue(ids.has("1", ring, 0, true))
  })
})

describe("ProofNews", () => {
  const start = Effect.fnUntraced(function*(proved = 0) {
    const log = new FailureLog()
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
    yield* Effect.forkScoped(Effect.provide(ProofNews.run(log, () => proved), Logger.layer([logger])))
    return { lines, log }
  })

  it.effect("says in one line why peers fail, and what to do, and no more for ten minutes", () =>
    Effect.gen(function*() {
      const { lines, log } = yield* start()
      log.add({ reason: "other_key", id: "a", address: "10.0.0.1" })
      log.add({ reason: "other_key", id: "b", address: "10.0.0.2" })
      log.add({ reason: "timeout", id: "c", address: "10.0.0.3" })
      yield* TestClock.adjust("10 seconds")
      const line =
        "Warn peers have another cluster key (2), have not proved in time that they know the cluster key (1); " +
        "give all nodes the same cluster key file"
      assert.deepStrictEqual(lines, [line])
      for (let index = 0; index < 500; index++) log.add({ reason: "unproved", id: `${index}`, address: "10.0.0.66" })
      yield* TestClock.adjust("9 minutes")
      assert.strictEqual(lines.length, 1)
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(lines.slice(1), ["Warn peers do not prove that they know the cluster key (64 or more)"])
      assert.strictEqual(log.counts.get("unproved"), 500)
    }))

  it.effect("does not warn of a few that have another key: they do so themselves", () =>
    Effect.gen(function*() {
      const { lines, log } = yield* start(2)
      log.add({ reason: "other_key", id: "a", address: "10.0.0.1" })
      yield* TestClock.adjust("10 seconds")
      log.add({ reason: "other_key", id: "b", address: "10.0.0.2" })
      log.add({ reason: "other_key", id: "c", address: "10.0.0.3" })
      yield* TestClock.adjust("10 minutes")
      log.add({ reason: "bad_signature", id: "d", address: "10.0.0.4" })
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(lines, [
        "Info peers have another cluster key (1); give all nodes the same cluster key file",
        "Warn peers have another cluster key (2); give all nodes the same cluster key file",
        "Warn peers have sent a wrong signature (1)"
      ])
    }))

  it.effect("says nothing while no proof fails", () =>
    Effect.gen(function*() {
      const { lines } = yield* start()
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(lines, [])
    }))
})
