/**
 * The media types of held manifests. A manifest need not say its own, and containerd believes the registry that it came
 * from: what it was stored under is the first to ask, then the indexes that name it, then its own bytes.
 */
import type { Descriptor } from "@spegel-ts/oci/Descriptor"
import type { Digest } from "@spegel-ts/oci/Digest"
import * as Manifest from "@spegel-ts/oci/Manifest"
import * as ManifestShape from "@spegel-ts/oci/ManifestShape"
import * as MediaType from "@spegel-ts/oci/MediaType"
import type { Reference } from "@spegel-ts/oci/Reference"
import { Effect, Option, Result } from "effect"
import type { BlobDirectory } from "./BlobDirectory.ts"
import type { ContentNotFound, StoreUnavailable } from "./ContentStore.ts"

/** Content that a store's owner keeps as something of a type, under a name or none. */
export interface Kept extends Pick<Descriptor, "digest" | "mediaType"> {
  readonly reference: Option.Option<Reference>
}

/** Indexes are small. What a larger one names is known by its own bytes. In bytes. */
const maxIndexSize = 256 * 1024

/** An index's children by digest, with their types. */
type Children = ReadonlyMap<Digest, string>

const isSameRepository = (one: Reference, other: Reference) =>
  one.registry === other.registry && one.repository === other.repository

/** Tells the types of manifests in `directory`. What its indexes name is read once. */
export const make = (directory: Pick<BlobDirectory, "manifestShape" | "readSmall">) => {
  const childrenOf = new Map<Digest, Children>()

  const load = (index: Digest) =>
    directory.readSmall(index, maxIndexSize).pipe(
      Effect.map((bytes) => {
        const named = Option.flatMap(bytes, (bytes) => Result.getSuccess(Manifest.readIndex(bytes)))
        const children = Option.getOrElse(named, () => [])
        childrenOf.set(index, new Map(children.map(({ digest, mediaType }) => [digest, mediaType])))
      }),
      // An index that is not here now is tried again.
      Effect.ignore
    )

  /** The types under which the indexes that are kept name a digest. */
  const typesByIndexes = Effect.fnUntraced(function*(digest: Digest, kept: ReadonlyArray<Kept>) {
    const indexes = new Set(kept.flatMap((one) => MediaType.isIndex(one.mediaType) ? [one.digest] : []))
    for (const index of childrenOf.keys()) {
      if (!indexes.has(index)) childrenOf.delete(index)
    }
    yield* Effect.forEach(
      [...indexes].filter((index) => !childrenOf.has(index)),
      load,
      { concurrency: 16, discard: true }
    )
    return new Set([...childrenOf.values()].flatMap((children) => children.get(digest) ?? []))
  })

  /**
   * The type of a held manifest; of `name` first, which may have a tag, where others keep the same manifest as another
   * type. `kept` is everything that is kept under a name. None for what is no manifest, or cannot be told to be one.
   */
  return Effect.fnUntraced(function*(
    digest: Digest,
    name: Option.Option<Reference>,
    kept: ReadonlyArray<Kept>
  ): Effect.fn.Return<Option.Option<string>, ContentNotFound | StoreUnavailable> {
    const shape = yield* directory.manifestShape(digest)
    if (Option.isNone(shape)) return Option.none()
    const same = kept.filter((one) => one.digest === digest)
    const typesOf = (matches: (name: Reference, reference: Reference) => boolean) =>
      new Set(
        same.flatMap(({ mediaType, reference }) =>
          Option.exists(Option.all([name, reference]), ([name, reference]) => matches(name, reference))
            ? [mediaType]
            : []
        )
      )
    const all = new Set(same.map(({ mediaType }) => mediaType))
    const isKnown = [...all].some((type) => ManifestShape.allows(shape.value, type))
    return ManifestShape.typeOf(shape.value, [
      typesOf((one, other) => isSameRepository(one, other) && one.tag === other.tag),
      typesOf(isSameRepository),
      all,
      isKnown ? new Set<string>() : yield* typesByIndexes(digest, kept)
    ])
  })
}
