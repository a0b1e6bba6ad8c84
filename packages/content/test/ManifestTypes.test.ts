import { assert, describe, it } from "@effect/vitest"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import * as OciLayout from "@spegel-ts/content/OciLayout"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Reference from "@spegel-ts/oci/Reference"
import { Effect, Option, Result } from "effect"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

const { dockerManifest, dockerManifestList, imageIndex, imageManifest } = MediaType

const reference = (text: string) => Option.some(Result.getOrThrow(Reference.parse(text)))

/** A layout of these documents by name, whose index lists what `list` gives for their digests. */
const layout = Effect.fnUntraced(function*<Name extends string>(
  documents: (digestOf: (name: Name) => string) => Readonly<Record<Name, unknown>>,
  list: (digestOf: (name: Name) => string) => unknown
) {
  const root = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "types-"))),
    (root) => Effect.promise(() => rm(root, { recursive: true, force: true }))
  )
  yield* Effect.promise(() => mkdir(join(root, "blobs", "sha256"), { recursive: true }))
  const digests = new Map<Name, Digest.Digest>()
  const digestOf = (name: Name) => digests.get(name) ?? assert.fail(`${name} comes later`)
  // Getters are run in order, so that an index can name what stands before it.
  const all = documents(digestOf)
  for (const name of Object.keys(all) as Array<Name>) {
    const bytes = Buffer.from(JSON.stringify(all[name]))
    const digest = Digest.ofBytes(bytes)
    digests.set(name, digest)
    yield* Effect.promise(() => writeFile(join(root, "blobs", "sha256", Digest.hex(digest)), bytes))
  }
  yield* Effect.promise(() => writeFile(join(root, "index.json"), JSON.stringify(list(digestOf))))
  const store = yield* Effect.provide(ContentStore, OciLayout.layer({ root }))
  return {
    store,
    typeOf: (document: Name, name: Option.Option<Reference.Reference> = Option.none()) =>
      Effect.map(store.manifestType(digests.get(document) ?? assert.fail(document), name), Option.getOrUndefined)
  }
})

const named = (name: string, mediaType: string | null, digest: string) => ({
  mediaType,
  digest,
  size: 1,
  annotations: { "org.opencontainers.image.ref.name": name }
})

describe("ManifestTypes", () => {
  const image = { config: {}, layers: [] }

  it.live("believes the record of the name, then of the repository, then any", () =>
    Effect.gen(function*() {
      const { typeOf } = yield* layout(
        () => ({ plain: image, foreign: { ...image, mediaType: "a/b" }, broken: { ...image, other: 1 } }),
        (digestOf) => ({
          manifests: [
            named("one.example/app:v1", dockerManifest, digestOf("plain")),
            named("one.example/app:v2", imageManifest, digestOf("plain")),
            named("two.example/app:v1", dockerManifest, digestOf("plain")),
            named("one.example/app:v3", imageManifest, digestOf("foreign")),
            named("one.example/app:v4", "application/octet-stream", digestOf("broken"))
          ]
        })
      )
      assert.strictEqual(yield* typeOf("plain", reference("one.example/app:v1")), dockerManifest)
      assert.strictEqual(yield* typeOf("plain", reference("one.example/app:v2")), imageManifest)
      assert.strictEqual(yield* typeOf("plain", reference("two.example/app")), dockerManifest)
      // Two types, and the bytes say neither.
      assert.isUndefined(yield* typeOf("plain", reference("one.example/app")))
      assert.isUndefined(yield* typeOf("plain"))
      assert.strictEqual(yield* typeOf("foreign"), imageManifest)
      assert.strictEqual(yield* typeOf("broken", reference("one.example/app:v4")), imageManifest)
    }))

  it.live("believes the indexes that name a manifest, and of those only what is kept now", () =>
    Effect.gen(function*() {
      const { store, typeOf } = yield* layout(
        (digestOf) => ({
          docker: { ...image, a: 1 },
          foreign: { ...image, mediaType: "a/b" },
          unlisted: { ...image, mediaType: "a/c" },
          get index() {
            return {
              mediaType: "",
              manifests: [
                null,
                { digest: "blake3:00" },
                { mediaType: dockerManifest, digest: digestOf("docker"), platform: null },
                { mediaType: imageManifest, digest: digestOf("foreign"), annotations: null }
              ]
            }
          },
          get unkept() {
            return { manifests: [{ mediaType: imageManifest, digest: digestOf("unlisted") }] }
          }
        }),
        (digestOf) => ({ manifests: [{ mediaType: dockerManifestList, digest: digestOf("index") }] })
      )
      assert.strictEqual(yield* typeOf("docker", reference("one.example/app")), dockerManifest)
      assert.strictEqual(yield* typeOf("foreign"), imageManifest)
      assert.isUndefined(yield* typeOf("unlisted"))
      assert.strictEqual(yield* typeOf("index"), dockerManifestList)
      assert.strictEqual(yield* typeOf("unkept"), imageIndex)
      assert.isDefined(store)
    }))

  it.live("serves what else a layout lists where one entry, or field, is foreign", () =>
    Effect.gen(function*() {
      const entries: ReadonlyArray<unknown> = [
        { mediaType: "a/b", digest: `blake3:${"a".repeat(64)}`, size: 3 },
        { mediaType: "a/b", digest: `sha384:${"a".repeat(96)}`, size: 3 },
        { mediaType: null, digest: `sha256:${"a".repeat(64)}`, size: null, annotations: null, platform: null },
        { mediaType: "", digest: `sha256:${"a".repeat(64)}`, size: -3, platform: {} },
        { annotations: { "org.opencontainers.image.ref.name": 5, "io.containerd.image.name": null } },
        {},
        null,
        [],
        5
      ]
      for (const [number, foreign] of entries.entries()) {
        for (const index of [{ schemaVersion: 2, mediaType: null }, { schemaVersion: "1" }, {}]) {
          const { store, typeOf } = yield* layout(
            () => ({ good: { ...image, number } }),
            (digestOf) => ({ ...index, manifests: [foreign, named("one.example/app:v1", null, digestOf("good"))] })
          )
          const name = reference("one.example/app:v1")
          yield* store.resolve(Option.getOrThrow(name))
          assert.strictEqual(yield* typeOf("good", name), imageManifest)
        }
      }
    }))
})
