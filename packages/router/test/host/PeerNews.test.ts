import { assert, describe, it } from "@effect/vitest"
import { type NamedPeer, run } from "@spegel-ts/router/internal/host/PeerNews"
import { Effect, Logger, References } from "effect"
import { TestClock } from "effect/testing"

const start = Effect.gen(function*() {
  const lines: Array<string> = []
  const members = new Map<string, NamedPeer>()
  const state = { fingerprint: 0, looks: 0 }
  const logger = Logger.make(({ fiber, message }) => {
    const { came = "", went = "" } = fiber.getRef(References.CurrentLogAnnotations)
    lines.push([String(message), String(came), String(went)].filter((text) => text !== "").join(" | "))
  })
  yield* run({
    fingerprint: () => state.fingerprint,
    peers: () => {
      state.looks++
      return [...members.values()]
    }
  }).pipe(Effect.provide(Logger.layer([logger])), Effect.forkScoped)
  const come = (id: string) => {
    members.set(id, { id, address: "10.0.0.1" })
    state.fingerprint++
  }
  const go = (id: string) => {
    members.delete(id)
    state.fingerprint++
  }
  return { lines, come, go, state, members }
})

describe("PeerNews", () => {
  it.effect("logs the first peers, one that joins and one that leaves", () =>
    Effect.gen(function*() {
      const { come, go, lines } = yield* start
      for (const id of ["a", "b"]) come(id)
      yield* TestClock.adjust("20 seconds")
      come("c")
      yield* TestClock.adjust("20 seconds")
      go("a")
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(lines, [
        "joined with 2 peers | a at 10.0.0.1, b at 10.0.0.1",
        "1 peer came | c at 10.0.0.1",
        "1 peer went | a at 10.0.0.1"
      ])
    }))

  it.effect("writes at most one line in ten seconds, however many join and leave", () =>
    Effect.gen(function*() {
      const { come, go, lines, members } = yield* start
      for (let second = 0; second < 120; second++) {
        for (let index = 0; index < 10; index++) come(`${second} ${index}`)
        if (second > 10) go(`${second - 10} 0`)
        yield* TestClock.adjust("1 second")
      }
      yield* TestClock.adjust("20 seconds")
      assert.isAtLeast(lines.length, 5)
      assert.isAtMost(lines.length, 14)
      for (const line of lines) assert.isBelow(line.length, 300)
      assert.include(lines.join("\n"), "more")
      assert.isAbove(members.size, 1000)
    }))

  it.effect("does not read the members while nothing changes", () =>
    Effect.gen(function*() {
      const { come, state } = yield* start
      come("a")
      yield* TestClock.adjust("10 seconds")
      const { looks } = state
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(state.looks, looks)
    }))

  it.effect("does not log a peer that was away for a moment", () =>
    Effect.gen(function*() {
      const { come, go, lines } = yield* start
      come("a")
      yield* TestClock.adjust("30 seconds")
      go("a")
      come("a")
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(lines.length, 1)
    }))
})
