import { assert, describe, it } from "@effect/vitest"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import * as ContentStoreConformance from "@spegel-ts/content/ContentStoreConformance"
import * as OciLayout from "@spegel-ts/content/OciLayout"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import { Effect, Layer, Result, Stream } from "effect"
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { testImage } from "./TestImage.ts"

const temporary = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "layout-"))),
  (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
)

const write = (writer: OciLayoutWriter.OciLayoutWriter, bytes: Uint8Array) =>
  Effect.scoped(Effect.gen(function*() {
    const digest = Digest.ofBytes(bytes)
    const ingest = yield* writer.ingest(digest, bytes.length)
    yield* ingest.write(bytes)
    yield* ingest.commit
    return digest
  }))

ContentStoreConformance.contentStoreConformance(
  "an OCI image layout",
  Effect.gen(function*() {
    const root = yield* temporary
    const writer = yield* OciLayoutWriter.make({ root })
    const held = new Map<string, ReadonlyArray<Digest.Digest>>()
    return {
      layer: OciLayout.layer({ root }),
      fixture: {
        addImage: (reference, seed) =>
          Effect.gen(function*() {
            const { config, descriptor, layer, manifest } = testImage(seed)
            const digests = yield* Effect.forEach([layer, config, manifest], (bytes) => write(writer, bytes))
            held.set(Reference.name(reference), digests)
            yield* writer.tag(reference, descriptor)
            return { manifest: descriptor, layer: { digest: Digest.ofBytes(layer), bytes: layer } }
          }).pipe(Effect.orDie),
        removeImage: (reference) =>
          Effect.gen(function*() {
            yield* writer.untag(reference)
            const digests = held.get(Reference.name(reference)) ?? []
            yield* Effect.promise(() =>
              Promise.all(digests.map((digest) => rm(join(root, "blobs", "sha256", Digest.hex(digest)))))
            )
          }).pipe(Effect.orDie)
      }
    }
  })
)

describe("OciLayout", () => {
  const reference = Result.getOrThrow(Reference.parse("registry.example/app:v1"))

  it.live("refuses a corrupt index at the start and names the file", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* Effect.promise(() => writeFile(join(root, "index.json"), `{"schemaVersion": 2, "manifests": [`))
      const error = yield* Effect.flip(Layer.build(OciLayout.layer({ root })))
      assert.strictEqual(error._tag, "StoreUnavailable")
      assert.include(error.message, join(root, "index.json"))
      assert.notInclude(error.message, "\n")
    }))

  it.live("keeps its names when the index is damaged later", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const writer = yield* OciLayoutWriter.make({ root })
      const { descriptor } = testImage("one")
      yield* writer.tag(reference, descriptor)
      yield* Effect.gen(function*() {
        const store = yield* ContentStore
        yield* Effect.promise(() => writeFile(join(root, "index.json"), "{"))
        assert.strictEqual(yield* store.resolve(reference), descriptor.digest)
      }).pipe(Effect.provide(OciLayout.layer({ root })))
    }))

  it.live("names a root that does not exist", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Layer.build(OciLayout.layer({ root: "/nowhere/layout" })))
      assert.include(error.message, "/nowhere/layout does not exist")
    }))

  it.live("a wrong digest is never kept", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const writer = yield* OciLayoutWriter.make({ root })
      const error = yield* Effect.scoped(Effect.gen(function*() {
        const ingest = yield* writer.ingest(Digest.ofBytes(Buffer.from("right")), 5)
        yield* ingest.write(Buffer.from("wrong"))
        return yield* Effect.flip(ingest.commit)
      }))
      assert.strictEqual(error._tag, "DigestMismatch")
      assert.deepStrictEqual(yield* Effect.promise(() => readdir(join(root, "blobs", "sha256"))), [])
      assert.deepStrictEqual(yield* Effect.promise(() => readdir(join(root, "ingest"))), [])
    }))

  it.live("lists downloads under way", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const writer = yield* OciLayoutWriter.make({ root })
      const bytes = Buffer.from("half of it")
      const digest = Digest.ofBytes(Buffer.from("half of it, and the rest"))
      const ingest = yield* writer.ingest(digest, 24)
      yield* ingest.write(bytes)
      const store = yield* Effect.provide(ContentStore, OciLayout.layer({ root }))
      const [only, ...more] = yield* Stream.runCollect(store.inProgress)
      assert.deepStrictEqual(more, [])
      assert.deepStrictEqual([only?.digest, only?.size, only?.written], [digest, 24, bytes.length])
    }))
})
