import { ContentStore } from "@spegel-ts/content/ContentStore"
import * as ContentStoreConformance from "@spegel-ts/content/ContentStoreConformance"
import * as MemoryStore from "@spegel-ts/content/MemoryStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import { testImage } from "@spegel-ts/testing/content/TestImage"
import { Context, Effect, Layer } from "effect"

ContentStoreConformance.contentStoreConformance(
  "memory",
  Effect.gen(function*() {
    const context = yield* Layer.build(MemoryStore.layer)
    const content = Context.get(context, MemoryStore.MemoryContent)
    const held = new Map<string, ReadonlyArray<Digest.Digest>>()
    return {
      layer: Layer.succeed(ContentStore, Context.get(context, ContentStore)),
      fixture: {
        addImage: (reference, seed) =>
          Effect.gen(function*() {
            const { config, descriptor, layer, manifest } = testImage(seed)
            const digests = yield* Effect.forEach([layer, config, manifest], content.put)
            held.set(Reference.name(reference), digests)
            yield* content.tag(reference, descriptor.digest)
            return { manifest: descriptor, layer: { digest: Digest.ofBytes(layer), bytes: layer } }
          }),
        removeImage: (reference) =>
          Effect.gen(function*() {
            yield* content.untag(reference)
            yield* Effect.forEach(held.get(Reference.name(reference)) ?? [], content.remove)
          })
      }
    }
  })
)
