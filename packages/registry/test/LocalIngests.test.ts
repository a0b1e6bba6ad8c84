import { assert, describe, it } from "@effect/vitest"
import { ContentStore, type Ingest } from "@spegel-ts/content/ContentStore"
import * as MemoryStore from "@spegel-ts/content/MemoryStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as LocalIngests from "@spegel-ts/registry/LocalIngests"
import { Effect, Stream } from "effect"
import { TestClock } from "effect/testing"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"

const right = Buffer.from("the bytes of a layer")
const wrong = Buffer.from("the bytes of a liar!")
const digest = Digest.ofBytes(right)

/** A store with one download of `digest`, whose state the test changes. */
const setUp = Effect.gen(function*() {
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "spegel-ingest-"))),
    (directory) => Effect.promise(() => rm(directory, { recursive: true }))
  )
  const path = join(directory, "data")
  const downloads: Array<Ingest> = []
  const discarded: Array<string> = []
  const memory = yield* ContentStore
  const ingests = yield* LocalIngests.make.pipe(Effect.provideService(ContentStore, {
    ...memory,
    inProgress: Stream.suspend(() => Stream.fromIterable([...downloads])),
    discard: () =>
      Effect.sync(() => {
        discarded.push(digest)
        downloads.length = 0
      })
  }))
  const write = (bytes: Buffer) =>
    Effect.promise(async () => {
      await writeFile(path, bytes)
      downloads[0] = { namespace: "", ref: `layer-${digest}`, digest, path, size: right.length, written: bytes.length }
    })
  /** Lets so much of the test's time go by, with real time for files in between. */
  const pass = (millis: number) =>
    Effect.forEach(
      Array.from({ length: Math.ceil(millis / 100) }),
      () => Effect.andThen(TestClock.adjust("100 millis"), Effect.promise(() => setTimeout(2))),
      { discard: true }
    )
  const untilDiscarded = pass(100).pipe(Effect.repeat({ until: () => discarded.length > 0, times: 1000 }))
  return { ingests, downloads, discarded, write, pass, path, untilDiscarded }
}).pipe(Effect.provide(MemoryStore.layer))

describe("LocalIngests", () => {
  it.effect("discards a complete download whose bytes are wrong", () =>
    Effect.gen(function*() {
      const { discarded, ingests, untilDiscarded, write } = yield* setUp
      yield* write(wrong)
      yield* ingests.suspect(digest)
      yield* untilDiscarded
      assert.deepStrictEqual(discarded, [digest])
    }))

  it.effect("leaves one that the rest from elsewhere has made right, and one that is gone", () =>
    Effect.gen(function*() {
      const { discarded, downloads, ingests, pass, write } = yield* setUp
      yield* write(right)
      yield* ingests.suspect(digest)
      yield* pass(500)
      yield* write(wrong)
      downloads.length = 0
      yield* ingests.suspect(digest)
      yield* pass(500)
      assert.deepStrictEqual(discarded, [])
    }))

  it.effect("waits while it grows or is being served here, and for upstream", () =>
    Effect.gen(function*() {
      const { discarded, ingests, pass, untilDiscarded, write } = yield* setUp
      yield* write(wrong.subarray(0, 5))
      yield* Effect.scoped(Effect.gen(function*() {
        yield* ingests.serving(digest)
        yield* ingests.suspect(digest)
        yield* pass(8000)
      }))
      yield* pass(4000)
      yield* write(wrong.subarray(0, 9))
      yield* pass(4000)
      assert.deepStrictEqual(discarded, [])
      yield* untilDiscarded
      assert.deepStrictEqual(discarded, [digest])
    }))

  it.effect("does not touch a new download of the same content", () =>
    Effect.gen(function*() {
      const { discarded, downloads, ingests, pass, path, write } = yield* setUp
      yield* write(wrong.subarray(0, 5))
      yield* ingests.suspect(digest)
      yield* pass(1000)
      downloads[0] = {
        namespace: "",
        ref: `layer-${digest}`,
        digest,
        path: `${path}-of-another-ingest`,
        size: right.length,
        written: 5
      }
      yield* pass(20_000)
      assert.deepStrictEqual(discarded, [])
    }))
})
