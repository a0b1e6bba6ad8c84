/** A `ContentStore` in memory, and a service to change it: for tests, and for programs without files. */
import * as Digest from "@spegel-ts/oci/Digest"
import * as ManifestShape from "@spegel-ts/oci/ManifestShape"
import * as Reference from "@spegel-ts/oci/Reference"
import { Context, Effect, Layer, Option, Stream } from "effect"
import * as ChangeFeed from "./ChangeFeed.ts"
import { BlobSource, ContentChange, ContentNotFound, ContentStore, type Name } from "./ContentStore.ts"

/** Changes what the `ContentStore` beside it holds. A call that changes nothing publishes nothing. */
export class MemoryContent extends Context.Service<MemoryContent, {
  readonly put: (bytes: Uint8Array) => Effect.Effect<Digest.Digest>
  readonly remove: (digest: Digest.Digest) => Effect.Effect<void>
  readonly tag: (reference: Reference.Reference, digest: Digest.Digest) => Effect.Effect<void>
  readonly untag: (reference: Reference.Reference) => Effect.Effect<void>
}>()("@spegel-ts/content/MemoryContent") {}

/** An empty store, and the service that changes it. */
export const layer: Layer.Layer<ContentStore | MemoryContent> = Layer.effectContext(Effect.gen(function*() {
  const blobs = new Map<Digest.Digest, Uint8Array>()
  const names = new Map<string, Name>()
  const { changes, publish } = yield* ChangeFeed.make()

  const blob = (digest: Digest.Digest) =>
    Effect.suspend(() => Effect.fromOption(Option.fromUndefinedOr(blobs.get(digest)))).pipe(
      Effect.mapError(() => new ContentNotFound({ content: digest }))
    )

  const store = ContentStore.of({
    resolve: (reference) =>
      Effect.suspend(() => {
        const name = Reference.name(reference)
        const held = names.get(name)
        return held === undefined ? Effect.fail(new ContentNotFound({ content: name })) : Effect.succeed(held.digest)
      }),
    size: (digest) => Effect.map(blob(digest), ({ length }) => length),
    manifestType: (digest) =>
      Effect.map(blob(digest), (bytes) => Option.flatMap(ManifestShape.ofBytes(bytes), ManifestShape.ownType)),
    open: (digest) => Effect.map(blob(digest), (bytes) => BlobSource.Bytes({ bytes, size: bytes.length })),
    names: Stream.suspend(() => Stream.fromIterable([...names.values()])),
    digests: Stream.suspend(() => Stream.fromIterable([...blobs.keys()])),
    changes,
    inProgress: Stream.empty,
    openIngest: ({ digest }) => Effect.fail(new ContentNotFound({ content: `a download of ${digest}` })),
    discard: () => Effect.void
  })

  const content = MemoryContent.of({
    put: Effect.fnUntraced(function*(bytes) {
      const digest = Digest.ofBytes(bytes)
      if (blobs.has(digest)) return digest
      blobs.set(digest, bytes)
      yield* publish(ContentChange.BlobAdded({ digest }))
      return digest
    }),
    remove: Effect.fnUntraced(function*(digest) {
      if (blobs.delete(digest)) yield* publish(ContentChange.BlobRemoved({ digest }))
    }),
    tag: Effect.fnUntraced(function*(reference, digest) {
      const name = Reference.name(reference)
      if (names.get(name)?.digest === digest) return
      names.set(name, { reference, digest })
      yield* publish(ContentChange.NameAdded({ reference, digest }))
    }),
    untag: Effect.fnUntraced(function*(reference) {
      if (names.delete(Reference.name(reference))) yield* publish(ContentChange.NameRemoved({ reference }))
    })
  })
  return Context.make(ContentStore, store).pipe(Context.add(MemoryContent, content))
}))
