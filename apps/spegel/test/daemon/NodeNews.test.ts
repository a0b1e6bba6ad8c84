import { assert, describe, it } from "@effect/vitest"
import { Outcome } from "@spegel-ts/registry/Outcome"
import type { PullEvent } from "@spegel-ts/registry/PullLog"
import * as NodeNews from "@spegel-ts/spegel/daemon/NodeNews"
import { Effect, Logger, Queue, References, Stream } from "effect"
import { TestClock } from "effect/testing"

const listen = () => {
  const lines: Array<string> = []
  const logger = Logger.make(({ fiber, logLevel, message }) => {
    const { reasons = "" } = fiber.getRef(References.CurrentLogAnnotations)
    lines.push([`${logLevel} ${String(message)}`, String(reasons)].filter((text) => text !== "").join(" | "))
  })
  return { lines, layer: Logger.layer([logger]) }
}

const pull = (over: Partial<PullEvent>): PullEvent => ({
  time: 0,
  method: "GET",
  mirrored: false,
  registry: "docker.io",
  content: "sha256:00",
  range: undefined,
  source: "none",
  status: 404,
  bytes: 0,
  firstByteMillis: 0,
  millis: 0,
  peersSeen: 1,
  peersFailed: 1,
  attempts: [{
    peer: "a",
    address: "10.0.0.7:5000",
    start: 0,
    hedge: false,
    firstByteMillis: undefined,
    bytes: 0,
    outcome: Outcome.Failed({ reason: "no byte for 2000 ms" })
  }],
  reason: "",
  ...over
})

describe("what a node says of itself", () => {
  it.effect("tells how much it advertises when that is different, and twice a minute at most", () =>
    Effect.gen(function*() {
      const { layer, lines } = listen()
      let digests = 0
      const images = new Map<string, number>()
      const snapshot = Effect.sync(() => ({ tags: new Map<string, number>(), images, digests }))
      yield* Effect.forkScoped(Effect.provide(NodeNews.followAdvertised(snapshot), layer))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(lines, [])
      images.set("docker.io", 2).set("ghcr.io", 1)
      digests = 12
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual(lines, ["Info advertising 3 images (12 digests)"])
      for (let second = 0; second < 120; second++) {
        digests++
        yield* TestClock.adjust("1 second")
      }
      yield* TestClock.adjust("1 minute")
      assert.isAtMost(lines.length, 6)
      assert.strictEqual(lines.at(-1), "Info advertising 3 images (132 digests)")
    }))

  it.effect("warns of requests that peers have failed, many in one line, and of nothing else", () =>
    Effect.gen(function*() {
      const { layer, lines } = listen()
      const events = yield* Queue.unbounded<PullEvent>()
      yield* NodeNews.followFailures(Stream.fromQueue(events)).pipe(Effect.provide(layer), Effect.forkScoped)
      const others = [
        pull({ peersFailed: 0 }),
        // Another peer took over.
        pull({ status: 200, source: "b" }),
        pull({ status: 206, source: "b" }),
        pull({ status: 200, source: "local", peersFailed: 0 })
      ]
      yield* Queue.offerAll(events, others)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(lines, [])
      yield* Queue.offer(events, pull({ status: 0, source: "a" }))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(lines, [
        "Warn peers failed a request: upstream serves the rest | 10.0.0.7:5000: no byte for 2000 ms"
      ])
      yield* Queue.offerAll(events, Array.from({ length: 500 }, () => pull({})))
      yield* TestClock.adjust("1 minute")
      assert.isAtMost(lines.length, 3)
      assert.include(lines[1], "requests")
    }))
})
