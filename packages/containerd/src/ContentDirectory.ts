/**
 * Whether a content directory is the one of this containerd. It may belong to another daemon or another root, or the wrong
 * directory was mounted. A container sees other paths than containerd does, so we compare contents, not paths.
 */
import * as Digest from "@spegel-ts/oci/Digest"
import { Data, Effect } from "effect"
import { stat } from "node:fs/promises"
import type { ContainerdClient, ContainerdFailed, ContainerdUnavailable, Image } from "./ContainerdClient.ts"

/** What a comparison comes to. */
export type Comparison = Data.TaggedEnum<{
  /** It has the content of all images. */
  Same: {}
  /** It lacks the content of this image. */
  Lacks: { readonly image: string }
  /** containerd has no images, and both directories are in sight: they are two. */
  OtherPlace: {}
  /** containerd has no images, and nothing speaks against the directory. */
  NoImages: { readonly isThere: boolean }
}>
export const Comparison = Data.taggedEnum<Comparison>()

/** What is compared. Its effects may fail; then `compare` fails as they do. */
export interface Options<E, E2> {
  readonly client: Pick<typeof ContainerdClient.Service, "contentRoot">
  readonly contentPath: string
  /** Images of containerd's namespace now. Those with another digest than sha256 are not compared: they are not served. */
  readonly images: Effect.Effect<ReadonlyArray<Image>, E>
  /** Whether the directory has a blob. */
  readonly has: (digest: Digest.Digest) => Effect.Effect<boolean, E2>
}

/** The most images that are compared. */
const maxImages = 1000
/** containerd may be writing or removing the missing content at this moment, so we look twice. */
const secondLook = "1 second"

const placeOf = (path: string) =>
  Effect.promise(() => stat(path).then(({ dev, ino }) => `${dev} ${ino}`, () => undefined))

/** Compares all images. */
export const compare = Effect.fn("ContentDirectory.compare")(function*<E, E2 = never>(
  { client, contentPath, has, images }: Options<E, E2>
): Effect.fn.Return<Comparison, E | E2 | ContainerdUnavailable | ContainerdFailed> {
  const look = Effect.gen(function*() {
    const known = (yield* images).filter(({ digest }) => Digest.algorithm(digest) === "sha256").slice(0, maxImages)
    const missing = yield* Effect.filter(known, ({ digest }) => Effect.map(has(digest), (isThere) => !isThere))
    return { hasImages: known.length > 0, missing }
  })
  const first = yield* look
  if (!first.hasImages) {
    // Two directories that are both in sight can still differ.
    const [theirs, ours] = yield* Effect.all([placeOf(yield* client.contentRoot), placeOf(contentPath)])
    return theirs !== undefined && ours !== undefined && theirs !== ours
      ? Comparison.OtherPlace()
      : Comparison.NoImages({ isThere: ours !== undefined })
  }
  if (first.missing.length === 0) return Comparison.Same()
  yield* Effect.sleep(secondLook)
  const example = (yield* look).missing.find(({ digest, name }) =>
    first.missing.some((image) => image.name === name && image.digest === digest)
  )
  return example === undefined ? Comparison.Same() : Comparison.Lacks({ image: example.name })
})
