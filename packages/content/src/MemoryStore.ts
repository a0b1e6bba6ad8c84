/** A `ContentStore` in memory, with the means to change it: for tests, and for programs that hold no files. */
import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Reference from "@spegel-ts/oci/Reference"
import { Context, Effect, Layer, Option, PubSub, Stream } from "effect"
import { BlobSource, ContentChange, ContentNotFound, ContentStore, type Name } from "./ContentStore.ts"

/** Changes what the `ContentStore` beside it holds. */
export class MemoryContent extends Context.Service<MemoryContent, {
  readonly put: (bytes: Uint8Array) => Effect.Effect<Digest.Digest>
  readonly remove: (digest: Digest.Digest) => Effect.Effect<void>
  readonly tag: (reference: Reference.Reference, digest: Digest.Digest) => Effect.Effect<void>
  readonly untag: (reference: Reference.Reference) => Effect.Effect<void>
}>()("@spegel-ts/content/MemoryContent") {}

/** An empty store and its handle. */
export const layer: Layer.Layer<ContentStore | MemoryContent> = Layer.effectContext(Effect.gen(function*() {
  const blobs = new Map<Digest.Digest, Uint8Array>()
  const names = new Map<string, Name>()
  const changes = yield* PubSub.unbounded<ContentChange>()

  const blob = (digest: Digest.Digest) =>
    Effect.fromOption(Option.fromUndefinedOr(blobs.get(digest))).pipe(
      Effect.mapError(() => new ContentNotFound({ content: digest }))
    )

  const store = ContentStore.of({
    resolve: (reference) =>
      Effect.suspend(() => {
        const name = Reference.name(reference)
        const held = names.get(name)
        return held === undefined ? Effect.fail(new ContentNotFound({ content: name })) : Effect.succeed(held.digest)
      }),
    describe: (digest) =>
      Effect.map(Effect.suspend(() => blob(digest)), (bytes) =>
        new Descriptor({
          digest,
          size: bytes.length,
          mediaType: Option.getOrElse(MediaType.ofManifest(bytes), () => MediaType.octetStream)
        })),
    open: (digest) =>
      Effect.map(Effect.suspend(() => blob(digest)), (bytes) => BlobSource.Bytes({ bytes, size: bytes.length })),
    names: Stream.suspend(() => Stream.fromIterable(names.values())),
    digests: Stream.suspend(() => Stream.fromIterable(blobs.keys())),
    changes: Stream.unwrap(Effect.map(
      PubSub.subscribe(changes),
      (subscription) => Stream.concat(Stream.make(ContentChange.Resync()), Stream.fromSubscription(subscription))
    )),
    inProgress: Stream.empty
  })

  const content = MemoryContent.of({
    put: (bytes) =>
      Effect.suspend(() => {
        const digest = Digest.ofBytes(bytes)
        blobs.set(digest, bytes)
        return Effect.as(PubSub.publish(changes, ContentChange.BlobAdded({ digest })), digest)
      }),
    remove: (digest) =>
      Effect.suspend(() => {
        blobs.delete(digest)
        return Effect.asVoid(PubSub.publish(changes, ContentChange.BlobRemoved({ digest })))
      }),
    tag: (reference, digest) =>
      Effect.suspend(() => {
        names.set(Reference.name(reference), { reference, digest })
        return Effect.asVoid(PubSub.publish(changes, ContentChange.NameAdded({ reference, digest })))
      }),
    untag: (reference) =>
      Effect.suspend(() => {
        names.delete(Reference.name(reference))
        return Effect.asVoid(PubSub.publish(changes, ContentChange.NameRemoved({ reference })))
      })
  })
  return Context.make(ContentStore, store).pipe(Context.add(MemoryContent, content))
}))
