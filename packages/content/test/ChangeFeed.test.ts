import { assert, describe, it } from "@effect/vitest"
import * as ChangeFeed from "@spegel-ts/content/ChangeFeed"
import { ContentChange } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import { Effect, Fiber, Latch, Queue, Stream } from "effect"

const added = (text: string) => ContentChange.BlobAdded({ digest: Digest.ofBytes(Buffer.from(text)) })

describe("ChangeFeed", () => {
  it.effect("tells a subscriber that fell behind to list again, then goes on", () =>
    Effect.gen(function*() {
      const feed = yield* ChangeFeed.make({ capacity: 4 })
      const listening = yield* Latch.make(false)
      const goOn = yield* Latch.make(false)
      const fiber = yield* feed.changes.pipe(
        Stream.tap((change) => change._tag === "Resync" ? Effect.andThen(listening.open, goOn.await) : Effect.void),
        Stream.take(6),
        Stream.runCollect,
        Effect.forkChild
      )
      yield* listening.await
      for (let index = 0; index < 100; index++) yield* feed.publish(added(`${index}`))
      yield* goOn.open
      assert.deepStrictEqual(yield* Fiber.join(fiber), [
        ContentChange.Resync(),
        ContentChange.Resync(),
        ...["96", "97", "98", "99"].map(added)
      ])
    }))

  it.effect("holds its own changes back until those it is joined with have begun", () =>
    Effect.gen(function*() {
      const feed = yield* ChangeFeed.make()
      const others = yield* Queue.unbounded<ContentChange>()
      const subscribed = yield* Latch.make(false)
      const joined = feed.changesWith(
        Stream.unwrap(Effect.as(subscribed.open, Stream.fromQueue(others)))
      )
      const fiber = yield* joined.pipe(Stream.take(2), Stream.runCollect, Effect.forkChild)
      yield* subscribed.await
      yield* feed.publish(added("early"))
      yield* Effect.yieldNow
      yield* Queue.offer(others, ContentChange.Resync())
      assert.deepStrictEqual(yield* Fiber.join(fiber), [ContentChange.Resync(), added("early")])
    }))
})
