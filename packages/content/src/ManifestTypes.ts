/**
 * The media types of held manifests. A manifest need not contain its type, and containerd believes the registry. So the
 * type under which it was stored decides first, then the indexes that name it, then its own bytes.
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

/** Content that a store's owner keeps under a media type, with or without a name. */
export interface Kept extends Pick<Descriptor, "digest" | "mediaType"> {
  readonly reference: Option.Option<Reference>
}

/** Size limit in bytes of indexes that we read. Manifests in a larger one have to declare their own type. */
const maxIndexSize = 256 * 1024

/** The types of an index's children, by digest. */
type Children = ReadonlyMap<Digest, string>

const isSameRepository = (one: Reference, other: Reference) =>
  one.registry === other.registry && one.repository === other.repository

/** For manifests in `directory`. Each index is read once. */
export const make = (directory: Pick<BlobDirectory, "manifestShape" | "readSmall">) => {
  const childrenOf = new Map<Digest, Children>()

  const load = (index: Digest) =>
    directory.readSmall(index, maxIndexSize).pipe(
      Effect.map((bytes) => {
        const named = Option.flatMap(bytes, (bytes) => Result.getSuccess(Manifest.readIndex(bytes)))
        const children = Option.getOrElse(named, () => [])
        childrenOf.set(index, new Map(children.map(({ digest, mediaType }) => [digest, mediaType])))
      }),
      // A missing index is tried again next time.
      Effect.ignore
    )

  /** The types that the kept indexes give a digest. */
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
   * The type of a held manifest. If several names keep it under different types, the type of `name` counts. `kept` is
   * everything that the store's owner keeps. None if it is not a manifest, or its type is in doubt.
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
