import { assert, describe, it } from "@effect/vitest"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import * as OciLayout from "@spegel-ts/content/OciLayout"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import { testImage } from "@spegel-ts/testing/content/TestImage"
import { Effect, Result } from "effect"
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

const temporary = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "writer-"))),
  (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
)
const reference = Result.getOrThrow(Reference.parse("registry.example/app:v1"))
const bytes = Buffer.from("some bytes")
const digest = Digest.ofBytes(bytes)

describe("OciLayoutWriter", () => {
  it.live("writes in pieces, keeps what is right, and takes nothing after it", () =>
    Effect.gen(function*() {
      const writer = yield* OciLayoutWriter.make({ root: yield* temporary })
      const ingest = yield* writer.ingest(digest, bytes.length)
      yield* ingest.write(bytes.subarray(0, 4))
      yield* ingest.write(bytes.subarray(4))
      yield* ingest.commit
      assert.include((yield* Effect.flip(ingest.write(Buffer.alloc(0)))).message, "is committed already")
      assert.include((yield* Effect.flip(ingest.commit)).message, "is committed already")
      assert.deepStrictEqual(Buffer.from(yield* writer.read(digest)), bytes)
    }))

  it.live("refuses a wrong size either way, and leaves nothing", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const writer = yield* OciLayoutWriter.make({ root })
      yield* Effect.scoped(Effect.gen(function*() {
        const short = yield* writer.ingest(digest, bytes.length + 1)
        yield* short.write(bytes)
        assert.strictEqual((yield* Effect.flip(short.commit))._tag, "DigestMismatch")
        const long = yield* writer.ingest(digest, bytes.length - 1)
        assert.include((yield* Effect.flip(long.write(bytes))).message, "more than the 9 bytes announced")
        assert.include((yield* Effect.flip(long.commit)).message, "could not be written")
      }))
      assert.deepStrictEqual(yield* Effect.promise(() => readdir(join(root, "ingest"))), [])
      assert.deepStrictEqual(yield* Effect.promise(() => readdir(join(root, "blobs", "sha256"))), [])
    }))

  it.live("keeps no digest that could not be read again", () =>
    Effect.gen(function*() {
      const writer = yield* OciLayoutWriter.make({ root: yield* temporary })
      const sha512 = Digest.Digest.make(`sha512:${"0".repeat(128)}`)
      assert.include((yield* Effect.flip(writer.ingest(sha512, 1))).message, "is not a sha256 digest")
    }))

  it.live("leaves what others have put into the index as it is", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const { descriptor } = testImage("one")
      const index = {
        schemaVersion: 2,
        annotations: { kept: "yes" },
        manifests: [{ mediaType: "a/b", digest, size: 10, artifactType: "kept/too", annotations: { other: "entry" } }]
      }
      yield* Effect.promise(() => writeFile(join(root, "index.json"), JSON.stringify(index)))
      const writer = yield* OciLayoutWriter.make({ root })
      const content = Effect.promise(async (): Promise<unknown> =>
        JSON.parse(await readFile(join(root, "index.json"), "utf8"))
      )
      assert.deepStrictEqual(yield* content, index)
      yield* writer.tag(reference, descriptor)
      assert.notDeepEqual(yield* content, index)
      yield* writer.untag(reference)
      assert.deepStrictEqual(yield* content, index)
      assert.deepStrictEqual(
        (yield* Effect.promise(() => readdir(root))).filter((name) => name.startsWith(".index")),
        []
      )
    }))

  it.live("replaces a name however it was annotated", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const [one, two] = [testImage("one").descriptor, testImage("two").descriptor]
      const annotations = { "io.containerd.image.name": Reference.name(reference) }
      const index = { schemaVersion: 2, manifests: [{ ...one, annotations }] }
      yield* Effect.promise(() => writeFile(join(root, "index.json"), JSON.stringify(index)))
      const writer = yield* OciLayoutWriter.make({ root })
      const elsewhere = { "io.containerd.image.name": "registry.example/other:v9" }
      yield* writer.tag(reference, new Descriptor({ ...two, annotations: elsewhere }))
      const store = yield* Effect.provide(ContentStore, OciLayout.layer({ root }))
      assert.strictEqual(yield* store.resolve(reference), two.digest)
      yield* writer.untag(reference)
      assert.strictEqual((yield* Effect.flip(store.resolve(reference)))._tag, "ContentNotFound")
    }))
})
