import { assert, describe, it } from "@effect/vitest"
import { multiaddr } from "@multiformats/multiaddr"
import { IdentityConflicts } from "@spegel-ts/router/internal/host/IdentityConflicts"
import { Effect, Logger } from "effect"
import { TestClock } from "effect/testing"

const at = (...ips: ReadonlyArray<string>) => ips.map((ip) => multiaddr(`/ip4/${ip}/tcp/5001`))

/** A detector; `there` holds the addresses at which members can be reached. */
const start = Effect.gen(function*() {
  const warnings: Array<string> = []
  const dialled: Array<string> = []
  const there = new Set<string>()
  const conflicts = yield* IdentityConflicts.make({
    self: "self",
    dialAgain: (id, address) =>
      Effect.suspend(() => {
        dialled.push(`${id} ${address.toString()}`)
        return there.has(address.toString()) ? Effect.void : Effect.fail("nobody is there")
      })
  }).pipe(
    Effect.provide(Logger.layer([Logger.make(({ message }) => void warnings.push(String(message)))]))
  )
  const introduce = (...told: Parameters<typeof conflicts.introduced>) =>
    Effect.andThen(Effect.sync(() => conflicts.introduced(...told)), TestClock.adjust("1 second"))
  return { warnings, dialled, there, introduce }
})

describe("a member that is known at another address", () => {
  it.effect("has moved if it is no longer at the old one", () =>
    Effect.gen(function*() {
      const { dialled, introduce, warnings } = yield* start
      yield* introduce("a", at("10.0.0.1"), at("10.0.0.2"))
      assert.deepStrictEqual(dialled, ["a /ip4/10.0.0.1/tcp/5001"])
      assert.deepStrictEqual(warnings, [])
    }))

  it.effect("is two nodes if it is at both: warned of once, and checked again later", () =>
    Effect.gen(function*() {
      const { dialled, introduce, there, warnings } = yield* start
      there.add("/ip4/10.0.0.1/tcp/5001").add("/ip4/10.0.0.2/tcp/5001")
      // Each check connects to both, which introduces them again.
      for (let turn = 0; turn < 100; turn++) {
        yield* introduce("a", at("10.0.0.1"), at("10.0.0.2"))
        yield* introduce("a", at("10.0.0.2"), at("10.0.0.1"))
      }
      assert.strictEqual(warnings.length, 1)
      assert.strictEqual(dialled.length, 1)
      yield* TestClock.adjust("11 minutes")
      yield* introduce("a", at("10.0.0.1"), at("10.0.0.2"))
      assert.strictEqual(dialled.length, 2)
      assert.strictEqual(warnings.length, 1)
    }))

  it.effect("is one node if it has several addresses, whichever it connects from", () =>
    Effect.gen(function*() {
      const { dialled, introduce } = yield* start
      yield* introduce("a", at("10.0.0.1", "172.17.0.1", "192.168.0.1"), at("192.168.0.1", "10.0.0.1", "172.17.0.1"))
      yield* introduce("b", [], at("10.0.0.1"))
      yield* introduce("c", at("10.0.0.1"), [])
      assert.deepStrictEqual(dialled, [])
    }))

  it.effect("is checked although the hosts share a bridge's address", () =>
    Effect.gen(function*() {
      const { introduce, there, warnings } = yield* start
      there.add("/ip4/10.0.0.1/tcp/5001")
      yield* introduce("a", at("10.0.0.1", "172.17.0.1"), at("10.0.0.2", "172.17.0.1"))
      assert.strictEqual(warnings.length, 1)
    }))
})
