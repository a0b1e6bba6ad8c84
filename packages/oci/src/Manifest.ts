/** Image manifests and indexes (OCI image specification, manifest.md and image-index.md; Docker schema 2). */
import { Data, Option, Result, Schema } from "effect"
import { Descriptor } from "./Descriptor.ts"
import * as MediaType from "./MediaType.ts"

/** The manifest of one image: its configuration and its layers, the lowest first. */
export class ImageManifest extends Schema.Class<ImageManifest>("@spegel-ts/oci/ImageManifest")({
  schemaVersion: Schema.Literal(2),
  mediaType: Schema.optionalKey(Schema.Literals([MediaType.imageManifest, MediaType.dockerManifest])),
  config: Descriptor,
  layers: Schema.Array(Descriptor)
}) {}

/** Several manifests under one name, one a platform. */
export class ImageIndex extends Schema.Class<ImageIndex>("@spegel-ts/oci/ImageIndex")({
  schemaVersion: Schema.Literal(2),
  mediaType: Schema.optionalKey(Schema.Literals([MediaType.imageIndex, MediaType.dockerManifestList])),
  manifests: Schema.Array(Descriptor)
}) {}

/** The bytes are no manifest; `reason` says where they go wrong. */
export class InvalidManifest extends Data.TaggedError("InvalidManifest")<{ readonly reason: string }> {
  override get message() {
    return `invalid manifest: ${this.reason}`
  }
}

const decodeManifest = Schema.decodeUnknownResult(Schema.fromJsonString(ImageManifest))
const decodeIndex = Schema.decodeUnknownResult(Schema.fromJsonString(ImageIndex))

/** Reads a manifest or an index of at most 4 MiB. */
export const parse = (bytes: Uint8Array): Result.Result<ImageManifest | ImageIndex, InvalidManifest> => {
  const mediaType = MediaType.ofManifest(bytes)
  if (Option.isNone(mediaType)) {
    return Result.fail(new InvalidManifest({ reason: "neither an image manifest nor an index" }))
  }
  const text = new TextDecoder().decode(bytes)
  const decoded: Result.Result<ImageManifest | ImageIndex, Schema.SchemaError> = MediaType.isIndex(mediaType.value)
    ? decodeIndex(text)
    : decodeManifest(text)
  return Result.mapError(decoded, (error) => new InvalidManifest({ reason: error.message }))
}

/** What a manifest names, in the order that containerd fetches: manifests of an index; config, then layers. */
export const children = (manifest: ImageManifest | ImageIndex): ReadonlyArray<Descriptor> =>
  manifest instanceof ImageIndex ? manifest.manifests : [manifest.config, ...manifest.layers]
