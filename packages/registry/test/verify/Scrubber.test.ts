import { assert, describe, it } from "@effect/vitest"
import * as PeerAuth from "@spegel-ts/cluster-key/PeerAuth"
import { BlobSource, ContentStore } from "@spegel-ts/content/ContentStore"
import * as MemoryStore from "@spegel-ts/content/MemoryStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Scrubber from "@spegel-ts/registry/internal/verify/Scrubber"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router } from "@spegel-ts/router/Router"
import { newRing } from "@spegel-ts/testing/ClusterKeys"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { setTimeout } from "node:timers/promises"

const right = Buffer.from("as it was pulled")
const digest = Digest.ofBytes(right)

/** A node that holds one blob, which is read from the disk as `disk` has it. */
const setUp = Effect.gen(function*() {
  const network = Router.memoryNetwork()
  const self = { id: "self", addresses: ["127.0.0.1"], servicePort: 1 }
  const disk = { bytes: right, reads: 0 }
  const layer = Layer.mergeAll(
    Router.layerMemory({ network, self }),
    Layer.effect(
      ContentStore,
      Effect.map(ContentStore, (memory) => ({
        ...memory,
        open: () =>
          Effect.sync(() => {
            disk.reads++
            return BlobSource.Bytes({ bytes: disk.bytes, size: disk.bytes.length })
          })
      }))
    ).pipe(Layer.provideMerge(MemoryStore.layer))
  )
  return yield* Effect.gen(function*() {
    yield* Effect.flatMap(Router, (router) => router.advertise([ContentKey.make(digest)]))
    const check = yield* Scrubber.make
    /** The check reads in the background. */
    const settled = (done: () => boolean) =>
      Effect.promise(() => setTimeout(5)).pipe(Effect.repeat({ until: done, times: 2000 }))
    const suspect = check.suspect(digest, false)
    const suspectProved = check.suspect(digest, true)
    const advertised = () => network.providers.get(ContentKey.make(digest))?.has("self")
    const { put, remove } = yield* MemoryStore.MemoryContent
    /** Another file takes the blob's place. */
    const replace = (bytes: typeof right) =>
      Effect.andThen(
        remove(digest),
        Effect.suspend(() => {
          disk.bytes = bytes
          return put(right)
        })
      )
    return { ...check, suspect, suspectProved, settled, disk, advertised, replace }
  }).pipe(Effect.provide(yield* Layer.build(layer)))
})

describe("Scrubber", () => {
  it.effect("finds a damaged blob, and withdraws it", () =>
    Effect.gen(function*() {
      const { advertised, disk, isDamaged, settled, suspect } = yield* setUp
      disk.bytes = Buffer.from("as it was pulleD")
      yield* suspect
      yield* settled(() => advertised() === false)
      assert.deepStrictEqual([yield* isDamaged(digest), advertised()], [true, false])
    }))

  it.effect("advertises a damaged blob again once a right copy replaced it, and not after a wrong one", () =>
    Effect.gen(function*() {
      const { advertised, disk, isDamaged, replace, settled, suspect } = yield* setUp
      disk.bytes = Buffer.from("as it was pulleD")
      yield* suspect
      yield* settled(() => advertised() === false)
      for (const wrong of ["as it was PULLED", "as IT was pulled"]) {
        const reads = disk.reads
        yield* replace(Buffer.from(wrong))
        // Looked at, and read.
        yield* settled(() => disk.reads >= reads + 2)
        assert.isAtLeast(disk.reads, reads + 2)
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual([yield* isDamaged(digest), advertised()], [true, false])
      }
      yield* replace(right)
      yield* settled(() => advertised() === true)
      assert.deepStrictEqual([yield* isDamaged(digest), advertised()], [false, true])
      // It may be damaged once more.
      disk.bytes = Buffer.from("as it was pulleD")
      yield* TestClock.adjust("10 minutes")
      yield* suspect
      yield* settled(() => advertised() === false)
      assert.deepStrictEqual([yield* isDamaged(digest), advertised()], [true, false])
    }))

  it.effect("keeps a right blob, and does not read it for each complaint", () =>
    Effect.gen(function*() {
      const { advertised, disk, isDamaged, settled, suspect } = yield* setUp
      for (let turn = 0; turn < 5; turn++) yield* suspect
      yield* settled(() => disk.reads > 0)
      assert.deepStrictEqual([yield* isDamaged(digest), advertised(), disk.reads], [false, true, 1])
      yield* TestClock.adjust("10 minutes")
      yield* suspect
      yield* settled(() => disk.reads > 1)
      assert.strictEqual(disk.reads, 2)
    }))

  it.effect("hears only peers that proved themselves, where there is a key", () =>
    Effect.gen(function*() {
      const ring = newRing()
      for (const mode of ["prefer", "require"] as const) {
        const { disk, settled, suspect, suspectProved } = yield* setUp.pipe(
          Effect.provide(PeerAuth.layer({ mode, ring }))
        )
        for (let turn = 0; turn < 20; turn++) yield* suspect
        yield* Effect.promise(() => setTimeout(20))
        assert.strictEqual(disk.reads, 0)
        yield* suspectProved
        yield* settled(() => disk.reads > 0)
        assert.strictEqual(disk.reads, 1)
      }
    }))
})
