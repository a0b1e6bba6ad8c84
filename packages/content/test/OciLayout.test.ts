import { assert, describe, it } from "@effect/vitest"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import * as ContentStoreConformance from "@spegel-ts/content/ContentStoreConformance"
import * as OciLayout from "@spegel-ts/content/OciLayout"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import { testImage } from "@spegel-ts/testing/content/TestImage"
import { Effect, Layer, Logger, Result, Stream } from "effect"
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

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

  it.live("keeps its names when the index is damaged later, warns once, and goes on when it is whole", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const writer = yield* OciLayoutWriter.make({ root })
      const { descriptor } = testImage("one")
      yield* writer.tag(reference, descriptor)
      const index = join(root, "index.json")
      const whole = yield* Effect.promise(() => readFile(index, "utf8"))
      const warnings: Array<unknown> = []
      yield* Effect.gen(function*() {
        const store = yield* ContentStore
        yield* Effect.promise(() => writeFile(index, "{"))
        for (let times = 0; times < 5; times++) assert.strictEqual(yield* store.resolve(reference), descriptor.digest)
        assert.strictEqual(warnings.length, 1)
        assert.include(String(warnings[0]), index)
        yield* Effect.promise(() => writeFile(index, whole.replaceAll("app:v1", "app:v2")))
        assert.strictEqual((yield* Effect.flip(store.resolve(reference)))._tag, "ContentNotFound")
      }).pipe(
        Effect.provide([
          OciLayout.layer({ root }),
          Logger.layer([Logger.make(({ message }) => warnings.push(message))])
        ])
      )
    }))

  it.live("takes as names what is a full reference with a tag", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const { descriptor: { digest, mediaType, size } } = testImage("one")
      const entry = (annotations: Record<string, string>) => ({ digest, mediaType, size, annotations })
      const refName = "org.opencontainers.image.ref.name"
      const manifests = [
        entry({ [refName]: "v1" }),
        entry({ [refName]: "v2", "io.containerd.image.name": "docker.io/library/one:v2" }),
        entry({ [refName]: "registry.example/three:v3" }),
        entry({ [refName]: "registry.example/untagged" }),
        entry({ [refName]: "no//reference" }),
        { digest, mediaType, size }
      ]
      yield* Effect.promise(() => writeFile(join(root, "index.json"), JSON.stringify({ schemaVersion: 2, manifests })))
      const store = yield* Effect.provide(ContentStore, OciLayout.layer({ root }))
      const names = yield* Stream.runCollect(store.names)
      assert.deepStrictEqual(names.map((name) => Reference.name(name.reference)), [
        "docker.io/library/one:v2",
        "registry.example/three:v3"
      ])
    }))

  it.live("refuses an index that is too large", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* Effect.promise(async () => {
        await writeFile(join(root, "index.json"), "")
        await truncate(join(root, "index.json"), OciLayout.maxIndexSize + 1)
      })
      const error = yield* Effect.flip(Layer.build(OciLayout.layer({ root })))
      assert.include(error.message, "is not a file of at most 4194304 bytes")
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
