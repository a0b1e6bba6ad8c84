/** containerd's image records in memory. A listing fills them, events keep them up to date. */
import type { ChangeFeed } from "@spegel-ts/content/ChangeFeed"
import { ContentChange, type Name } from "@spegel-ts/content/ContentStore"
import type { Kept } from "@spegel-ts/content/ManifestTypes"
import * as Reference from "@spegel-ts/oci/Reference"
import { Effect, Option, Result } from "effect"
import {
  type ContainerdClient,
  type ContainerdFailed,
  type ContainerdUnavailable,
  type Image,
  registryImages
} from "../../ContainerdClient.ts"

type Failure = ContainerdUnavailable | ContainerdFailed

export interface ImageRecords {
  /** The target of each record, by its name. */
  readonly kept: ReadonlyMap<string, Kept>
  /** The records with a tag and no digest, which are the names that pulls ask for. */
  readonly names: ReadonlyMap<string, Name>
  readonly put: (image: Image) => Effect.Effect<void>
  readonly remove: (record: string) => Effect.Effect<void>
  /** All records of containerd now. */
  readonly images: Effect.Effect<ReadonlyArray<Image>, Failure>
  /** Replaces the records by those that containerd has now. */
  readonly list: Effect.Effect<void, Failure>
}

/**
 * The record's name as a reference; none for CRI's `sha256:<config>` and for short forms that people make with `ctr`.
 */
const referenceOf = ({ name }: Image): Option.Option<Reference.Reference> =>
  Option.filter(Result.getSuccess(Reference.parse(name)), (reference) => Reference.print(reference) === name)

/** Empty records, which publish to `feed` which names come and go. */
export const make = (client: typeof ContainerdClient.Service, feed: ChangeFeed): ImageRecords => {
  const kept = new Map<string, Kept>()
  const names = new Map<string, Name>()
  const images = client.images([registryImages])

  const put = Effect.fnUntraced(function*(image: Image) {
    const { digest, name } = image
    const reference = referenceOf(image)
    if (Option.isNone(reference)) return
    kept.set(name, { ...image, reference })
    const { value } = reference
    if (value.tag === undefined || value.digest !== undefined || names.get(name)?.digest === digest) return
    names.set(name, { reference: value, digest })
    yield* feed.publish(ContentChange.NameAdded({ reference: value, digest }))
  })

  const remove = Effect.fnUntraced(function*(record: string) {
    kept.delete(record)
    const held = names.get(record)
    if (held === undefined) return
    names.delete(record)
    yield* feed.publish(ContentChange.NameRemoved({ reference: held.reference }))
  })

  const list = Effect.gen(function*() {
    const listed = yield* images
    const held = new Set(listed.map(({ name }) => name))
    yield* Effect.forEach([...kept.keys()].filter((record) => !held.has(record)), remove, { discard: true })
    yield* Effect.forEach(listed, put, { discard: true })
  })

  return { kept, names, put, remove, images, list }
}
