/** The contract of `ContentStore`, as tests that every layer passes. Needs vitest: import it only from tests. */
import { assert, describe, it } from "@effect/vitest"
import type { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import { Effect, type Layer, Option, Queue, Result, Schedule, type Scope, Stream } from "effect"
import { readdir, readFile, readlink } from "node:fs/promises"
import { type BlobSource, type ContentChange, ContentStore } from "./ContentStore.ts"

/** How the suite fills a store: as its owner does (containerd, or a client that writes a layout). */
export interface ContentFixture {
  /** Stores an image of one config and one layer under `reference`; gives its parts. */
  readonly addImage: (reference: Reference.Reference, seed: string) => Effect.Effect<ImageFixture>
  /** Removes the name and all content that no other name keeps. */
  readonly removeImage: (reference: Reference.Reference) => Effect.Effect<void>
}

/** An image that a fixture has stored. */
export interface ImageFixture {
  readonly manifest: Descriptor
  readonly layer: { readonly digest: Digest.Digest; readonly bytes: Uint8Array }
}

/** All bytes of an opened blob. */
const readAll = (source: BlobSource): Effect.Effect<Uint8Array> =>
  source._tag === "Bytes"
    ? Effect.succeed(source.bytes)
    : Effect.promise(async () => {
      const buffer = Buffer.alloc(source.size)
      await source.handle.read(buffer, 0, source.size, 0)
      return buffer
    })

/** How many files and directories this process watches by inotify. */
const inotifyWatches = Effect.promise(async () => {
  let count = 0
  for (const fd of await readdir("/proc/self/fd").catch(() => [])) {
    const target = await readlink(`/proc/self/fd/${fd}`).catch(() => "")
    if (!target.includes("inotify")) continue
    count += (await readFile(`/proc/self/fdinfo/${fd}`, "utf8")).match(/^inotify wd:/gm)?.length ?? 0
  }
  return count
})

/** Declares the tests for one layer. `make` builds a fresh store for each, and the fixture that fills it. */
export const contentStoreConformance = (
  name: string,
  make: Effect.Effect<
    { readonly layer: Layer.Layer<ContentStore, unknown>; readonly fixture: ContentFixture },
    unknown,
    Scope.Scope
  >
) => {
  const test = (
    title: string,
    body: (fixture: ContentFixture) => Effect.Effect<void, unknown, ContentStore | Scope.Scope>
  ) =>
    it.live(title, () =>
      Effect.gen(function*() {
        const { fixture, layer } = yield* make
        yield* body(fixture).pipe(Effect.provide(layer))
      }))

  const reference = (text: string) => Result.getOrThrow(Reference.parse(text))
  const v1 = reference("registry.example:5000/team/app:v1")
  const v2 = reference("registry.example:5000/team/app:v2")
  const absent = Digest.ofBytes(Buffer.from("never stored"))

  /** Waits until a change of `tag` (for which `matches`) is seen. */
  const awaitChange = <Tag extends ContentChange["_tag"]>(
    queue: Queue.Dequeue<ContentChange>,
    tag: Tag,
    matches: (change: Extract<ContentChange, { _tag: Tag }>) => boolean
  ): Effect.Effect<void> =>
    Effect.gen(function*() {
      const change = yield* Queue.take(queue)
      if (change._tag === tag && matches(change as Extract<ContentChange, { _tag: Tag }>)) return
      yield* awaitChange(queue, tag, matches)
    })

  const subscribe = Effect.gen(function*() {
    const store = yield* ContentStore
    const queue = yield* Queue.unbounded<ContentChange>()
    yield* store.changes.pipe(Stream.runForEach((change) => Queue.offer(queue, change)), Effect.forkScoped)
    yield* awaitChange(queue, "Resync", () => true)
    return queue
  })

  describe(`ContentStore of ${name}`, { timeout: 60_000 }, () => {
    test("resolves, sizes, types and opens what it holds", (fixture) =>
      Effect.gen(function*() {
        const store = yield* ContentStore
        const image = yield* fixture.addImage(v1, "one")
        assert.strictEqual(yield* store.resolve(v1), image.manifest.digest)

        assert.strictEqual(yield* store.size(image.manifest.digest), image.manifest.size)
        for (const name of [Option.some(v1), Option.some(v2), Option.none()]) {
          assert.deepStrictEqual(
            yield* store.manifestType(image.manifest.digest, name),
            Option.some(image.manifest.mediaType)
          )
        }

        assert.deepStrictEqual(yield* store.manifestType(image.layer.digest, Option.none()), Option.none())
        // Only downloads are discarded.
        yield* store.discard({ namespace: "k8s.io", ref: `layer-${image.layer.digest}` })
        const source = yield* store.open(image.layer.digest)
        assert.strictEqual(source.size, image.layer.bytes.length)
        assert.deepStrictEqual(Digest.ofBytes(yield* readAll(source)), image.layer.digest)
      }))

    test("lists names and digests", (fixture) =>
      Effect.gen(function*() {
        const store = yield* ContentStore
        const image = yield* fixture.addImage(v1, "one")
        yield* fixture.addImage(v2, "two")
        // A store may learn of names by events, a moment after they were made.
        const names = yield* Stream.runCollect(store.names).pipe(
          Effect.repeat({ schedule: Schedule.spaced("10 millis"), until: ({ length }) => length >= 2, times: 500 })
        )
        assert.deepStrictEqual(
          names.map((name) => Reference.print(name.reference)).toSorted(),
          [Reference.print(v1), Reference.print(v2)]
        )
        const digests = new Set(yield* Stream.runCollect(store.digests))
        assert.isTrue(digests.has(image.manifest.digest) && digests.has(image.layer.digest))
      }))

    test("says what it does not hold", () =>
      Effect.gen(function*() {
        const store = yield* ContentStore
        const ref = `layer-${absent}`
        const gone = { namespace: "k8s.io", ref, digest: absent, path: "/nonexistent/data", size: 1, written: 0 }
        assert.strictEqual((yield* Effect.flip(Effect.scoped(store.openIngest(gone))))._tag, "ContentNotFound")
        yield* store.discard(gone)
        const errors = [
          yield* Effect.flip(store.resolve(v1)),
          yield* Effect.flip(store.size(absent)),
          yield* Effect.flip(store.manifestType(absent, Option.none())),
          yield* Effect.flip(Effect.scoped(store.open(absent)))
        ]
        assert.deepStrictEqual(errors.map((error) => error._tag), [
          "ContentNotFound",
          "ContentNotFound",
          "ContentNotFound",
          "ContentNotFound"
        ])
        assert.include(errors[0]?.message, "registry.example:5000/team/app:v1")
      }))

    test("tells what comes and goes", (fixture) =>
      Effect.gen(function*() {
        const changes = yield* subscribe
        const image = yield* fixture.addImage(v1, "one")
        // Blobs and names have different sources: their relative order is not guaranteed.
        const names = yield* subscribe
        yield* awaitChange(changes, "BlobAdded", (change) => change.digest === image.layer.digest)
        yield* fixture.removeImage(v1)
        yield* awaitChange(names, "NameRemoved", (change) => Reference.print(change.reference) === Reference.print(v1))
        yield* awaitChange(changes, "BlobRemoved", (change) => change.digest === image.layer.digest)
        const store = yield* ContentStore
        assert.strictEqual((yield* Effect.flip(store.resolve(v1)))._tag, "ContentNotFound")
      }))

    test("moves a tag", (fixture) =>
      Effect.gen(function*() {
        const store = yield* ContentStore
        yield* fixture.addImage(v1, "one")
        const changes = yield* subscribe
        const moved = yield* fixture.addImage(v1, "two")
        yield* awaitChange(changes, "NameAdded", (change) => change.digest === moved.manifest.digest)
        assert.strictEqual(yield* store.resolve(v1), moved.manifest.digest)
      }))

    test("keeps an open blob readable when it is removed", (fixture) =>
      Effect.gen(function*() {
        const store = yield* ContentStore
        const image = yield* fixture.addImage(v1, "one")
        const changes = yield* subscribe
        const source = yield* store.open(image.layer.digest)
        yield* fixture.removeImage(v1)
        yield* awaitChange(changes, "BlobRemoved", (change) => change.digest === image.layer.digest)
        assert.deepStrictEqual(Digest.ofBytes(yield* readAll(source)), image.layer.digest)
        assert.strictEqual((yield* Effect.flip(Effect.scoped(store.open(image.layer.digest))))._tag, "ContentNotFound")
      }))

    test("begins with a resync, for each of several subscribers, and tells all of them", (fixture) =>
      Effect.gen(function*() {
        const store = yield* ContentStore
        const first = yield* Stream.runHead(store.changes)
        assert.strictEqual(Option.getOrThrow(first)._tag, "Resync")
        const subscribers = yield* Effect.forEach(Array.from({ length: 3 }), () => subscribe)
        const image = yield* fixture.addImage(v1, "one")
        yield* Effect.forEach(
          subscribers,
          (queue) => awaitChange(queue, "BlobAdded", (change) => change.digest === image.layer.digest),
          { concurrency: "unbounded" }
        )
      }))

    test("closes an opened blob with its scope", (fixture) =>
      Effect.gen(function*() {
        const store = yield* ContentStore
        const image = yield* fixture.addImage(v1, "one")
        const source = yield* Effect.scoped(store.open(image.layer.digest))
        // Node gives a closed handle the descriptor -1.
        if (source._tag === "File") assert.strictEqual(source.handle.fd, -1)
      }))

    test("leaves no watcher when its subscribers have gone", () =>
      Effect.gen(function*() {
        const before = yield* inotifyWatches
        yield* Effect.scoped(Effect.forEach(Array.from({ length: 3 }), () => subscribe))
        assert.strictEqual(yield* inotifyWatches, before)
      }))
  })
}
