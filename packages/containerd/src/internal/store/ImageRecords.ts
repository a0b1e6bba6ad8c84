/** containerd's image records in memory: listed whenever its events are subscribed to, and kept equal by them. */
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
  /** What each record points to, by its name. */
  readonly kept: ReadonlyMap<string, Kept>
  /** The records by which pulls ask for an image. */
  readonly names: ReadonlyMap<string, Name>
  readonly put: (image: Image) => Effect.Effect<void>
  readonly remove: (record: string) => Effect.Effect<void>
  /** All records of containerd now. */
  readonly images: Effect.Effect<ReadonlyArray<Image>, Failure>
  /** Takes all records of containerd, and forgets those that it does not have. */
  readonly list: Effect.Effect<void, Failure>
}

/** The reference that a record's name is: not CRI's `sha256:<config>`, nor a short form that a person made with `ctr`. */
const referenceOf = ({ name }: Image): Option.Option<Reference.Reference> =>
  Option.filter(Result.getSuccess(Reference.parse(name)), (reference) => Reference.print(reference) === name)

/** Publishes to `feed` which names come and go. */
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
    // A pull asks for a tag, or for a digest, which is no name.
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
