/**
 * A content store of one's own: one image, whose layers are texts, made when the program starts. Nothing is written to a
 * disk, nothing comes or goes, and no download is under way; a store that changes would tell so by `changes`.
 */
import { BlobSource, ContentChange, ContentNotFound, ContentStore } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Reference from "@spegel-ts/oci/Reference"
import { Effect, Layer, Option, Stream } from "effect"

/** The image `reference` (with a tag): one layer of type `text/plain` for each text. */
export const layer = (reference: Reference.Reference, texts: ReadonlyArray<string>): Layer.Layer<ContentStore> =>
  Layer.sync(ContentStore, () => {
    const blobs = new Map<Digest.Digest, Uint8Array>()
    const put = (mediaType: string, text: string) => {
      const bytes = new TextEncoder().encode(text)
      const digest = Digest.ofBytes(bytes)
      blobs.set(digest, bytes)
      return { mediaType, digest, size: bytes.length }
    }
    const manifest = put(
      MediaType.imageManifest,
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MediaType.imageManifest,
        config: put("application/vnd.oci.empty.v1+json", "{}"),
        layers: texts.map((text) => put("text/plain", text))
      })
    )
    const bytesOf = (digest: Digest.Digest) =>
      Effect.fromNullishOr(blobs.get(digest)).pipe(Effect.mapError(() => new ContentNotFound({ content: digest })))

    return ContentStore.of({
      resolve: (wanted) =>
        Reference.name(wanted) === Reference.name(reference)
          ? Effect.succeed(manifest.digest)
          : Effect.fail(new ContentNotFound({ content: Reference.name(wanted) })),
      size: (digest) => Effect.map(bytesOf(digest), ({ length }) => length),
      manifestType: (digest) =>
        Effect.as(
          bytesOf(digest),
          digest === manifest.digest ? Option.some(MediaType.imageManifest) : Option.none()
        ),
      open: (digest) => Effect.map(bytesOf(digest), (bytes) => BlobSource.Bytes({ bytes, size: bytes.length })),
      names: Stream.make({ reference, digest: manifest.digest }),
      digests: Stream.fromIterable(blobs.keys()),
      changes: Stream.concat(Stream.make(ContentChange.Resync()), Stream.never),
      inProgress: Stream.empty,
      openIngest: ({ digest }) => Effect.fail(new ContentNotFound({ content: `a download of ${digest}` })),
      discard: () => Effect.void
    })
  })
