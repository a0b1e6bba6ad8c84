/** The named images that this node holds. */
import { ContentStore } from "@spegel-ts/content/ContentStore"
import * as Reference from "@spegel-ts/oci/Reference"
import { Effect, Stream } from "effect"

export interface ImagesView {
  /** Sorted by name. */
  readonly images: ReadonlyArray<{ readonly name: string; readonly digest: string }>
  /** Whether the store could not be asked. */
  readonly isUnknown: boolean
}

const unknown: ImagesView = { images: [], isUnknown: true }

/** Gives an effect that lists them anew each time. */
export const make = Effect.map(ContentStore, ({ names }) =>
  names.pipe(
    Stream.map(({ digest, reference }) => ({ name: Reference.name(reference), digest })),
    Stream.runCollect,
    Effect.map((found): ImagesView => ({
      images: found.toSorted((one, other) => one.name < other.name ? -1 : 1),
      isUnknown: false
    })),
    Effect.orElseSucceed(() => unknown)
  ))
