import { assert, describe, it } from "@effect/vitest"
import { PeerNotFound, PeerRefused, PeerUnreachable } from "@spegel-ts/registry/MirrorError"
import { PeerMemory } from "@spegel-ts/registry/PeerMemory"
import * as PeerRace from "@spegel-ts/registry/PeerRace"
import type { Peer } from "@spegel-ts/router/Peer"
import { Duration, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"

const peer = (id: string): Peer => ({ id, addresses: [id], registryPort: 1 })
const [a, b] = [peer("a"), peer("b")] as const
const content = "sha256:content"
const unreachable = new PeerUnreachable({ peer: "a", reason: "refused" })

describe("PeerMemory", () => {
  it("leaves a peer that cannot be reached alone, longer each time, up to a minute", () => {
    const memory = new PeerMemory()
    let now = 0
    for (const pause of [1, 2, 4, 8, 16, 32, 60, 60]) {
      memory.failed(a, content, unreachable, now)
      assert.include(memory.objection(a, content, now + pause * 1000 - 1), "could not be reached")
      now += pause * 1000
      assert.isUndefined(memory.objection(a, content, now))
    }
    memory.answered(a, 1)
    memory.failed(a, content, unreachable, now)
    assert.isUndefined(memory.objection(a, content, now + 1000))
  })

  it("remembers a 404 for a digest for ten minutes, for a tag not at all", () => {
    const memory = new PeerMemory()
    const refused = new PeerRefused({ peer: "a", reason: "answered 404", status: 404 })
    memory.failed(a, content, refused, 0)
    memory.failed(a, "registry.example/app:v1", refused, 0)
    assert.strictEqual(memory.objection(a, content, 599_999), "did not have it")
    assert.isUndefined(memory.objection(a, content, 600_000))
    assert.isUndefined(memory.objection(a, "registry.example/app:v1", 0))
    assert.isUndefined(memory.objection(b, content, 0))
  })

  it("takes nothing from a repeated liar until its lies fade; shared blame counts for that content only", () => {
    const memory = new PeerMemory()
    for (const lie of ["one", "two"]) memory.corrupted([a], lie, 0)
    for (const lie of ["one", "two", "three"]) memory.corrupted([a, b], lie, 0)
    assert.include(memory.objection(b, "three", 0), "wrong bytes")
    assert.isUndefined(memory.objection(a, "other", 0))
    memory.corrupted([a], "four", 0)
    assert.strictEqual(memory.objection(a, "other", 0), "has lied repeatedly")
    assert.isUndefined(memory.objection(a, "other", 60_000))
    assert.isUndefined(memory.objection(b, "other", 0))
  })

  it("hedges at the 80th percentile of first-byte times, and takes the less busy of two", () => {
    const memory = new PeerMemory()
    assert.strictEqual(memory.hedgeMillis, 50)
    for (let millis = 1; millis <= 100; millis++) memory.answered(a, millis)
    assert.strictEqual(memory.hedgeMillis, 81)
    assert.strictEqual(memory.choose([a, b], () => 0), 0)
    memory.busy(a, 1)
    assert.strictEqual(memory.choose([a, b], () => 0), 1)
    memory.busy(a, -1)
    assert.strictEqual(memory.choose([a, b], () => 0), 0)
  })
})

describe("PeerRace", () => {
  it.effect("skips whom it remembers, asks the next beside a late one, and closes the loser", () =>
    Effect.gen(function*() {
      const memory = new PeerMemory()
      memory.failed(a, content, unreachable, 0)
      const { race, tried } = yield* PeerRace.make({
        content,
        peers: Stream.fromIterable([a, b, peer("c")]),
        memory,
        attempts: 2,
        resolveTimeout: Duration.millis(20)
      })
      const open = new Set<string>()
      const asked: Array<string> = []
      const racing = yield* Effect.forkChild(race((peer) =>
        Effect.gen(function*() {
          asked.push(peer.id)
          yield* Effect.acquireRelease(
            Effect.sync(() => open.add(peer.id)),
            () => Effect.sync(() => open.delete(peer.id))
          )
          if (asked.length === 1) yield* Effect.never
          return peer.id
        })
      ))
      yield* TestClock.adjust("49 millis")
      assert.strictEqual(asked.length, 1)
      yield* TestClock.adjust("1 millis")
      const { value } = yield* Fiber.join(racing)
      assert.strictEqual(value, asked[1])
      assert.notInclude(asked, "a")
      assert.deepStrictEqual([...open], [value])
      // Peer a may not have been chosen yet; nobody else is left to try.
      const error = yield* Effect.flip(race(() => Effect.succeed("never")))
      assert.instanceOf(error, PeerNotFound)
      assert.include(tried.join(), "later than another")
    }))
})
