import { assert, describe, it } from "@effect/vitest"
import * as EventStreams from "@spegel-ts/spegel/page/EventStreams"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { EventEmitter } from "node:events"
import type { ServerResponse } from "node:http"
import { factsOf } from "./Facts.ts"

/** A page that reads, or does not. */
class FakeResponse extends EventEmitter {
  writableLength = 0
  readonly written: Array<string> = []

  writeHead() {
    return this
  }

  write(text: string) {
    this.written.push(text)
    return true
  }

  destroy() {
    this.emit("close")
  }

  /** The sections that it was told, event by event. */
  get told(): ReadonlyArray<ReadonlyArray<string>> {
    return this.written.filter((text) => text.startsWith("data: ")).map((text) =>
      Object.keys(JSON.parse(text.slice(6)))
    )
  }
}

const start = Effect.gen(function*() {
  const state = { gathered: 0, failed: 0 }
  const open = yield* EventStreams.make({
    facts: Effect.sync(() => {
      state.gathered++
      const facts = factsOf()
      return factsOf({ lastHour: { ...facts.lastHour, failed: state.failed } })
    }),
    images: Effect.succeed({ images: [], isUnknown: false })
  })
  return {
    state,
    open: Effect.fnUntraced(function*() {
      const response = new FakeResponse()
      const fiber = yield* Effect.forkScoped(open(response as unknown as ServerResponse, {}))
      return { response, fiber }
    })
  }
})

describe("the streams of open pages", () => {
  it.effect("gather nothing while no page is open, and tell an open one what has changed", () =>
    Effect.gen(function*() {
      const { open, state } = yield* start
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(state.gathered, 0)
      const { response } = yield* open()
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(response.told, [["status", "pulls", "uploads", "requests", "peers", "images"]])
      state.failed = 1
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(response.told.slice(1), [["status"]])
      assert.isAtMost(state.gathered, 7)
      response.destroy()
      yield* TestClock.adjust("1 second")
      const before = state.gathered
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(state.gathered, before)
    }))

  it.effect("end for a page that does not read, and go on for others", () =>
    Effect.gen(function*() {
      const { open, state } = yield* start
      const [slow, quick] = [yield* open(), yield* open()]
      yield* TestClock.adjust("1 second")
      slow.response.writableLength = 1024 * 1024
      state.failed = 1
      yield* TestClock.adjust("2 seconds")
      assert.isTrue(yield* Fiber.join(slow.fiber))
      assert.strictEqual(slow.response.told.length, 1)
      assert.strictEqual(quick.response.told.length, 2)
    }))

  it.effect("are a few at once", () =>
    Effect.gen(function*() {
      const { open } = yield* start
      const opened = yield* Effect.forEach(Array.from({ length: EventStreams.maxStreams }), open)
      yield* TestClock.adjust("1 second")
      assert.isFalse(yield* Fiber.join((yield* open()).fiber))
      opened[0]?.response.destroy()
      yield* TestClock.adjust("1 second")
      const another = yield* open()
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(another.response.told.length, 1)
    }))

  it.effect("show that they live while nothing changes", () =>
    Effect.gen(function*() {
      const { open } = yield* start
      const { response } = yield* open()
      yield* TestClock.adjust("1 minute")
      const comments = response.written.filter((text) => text === ":\n\n").length
      assert.isAtLeast(comments, 3)
      assert.isAtMost(comments, 4)
    }))
})
