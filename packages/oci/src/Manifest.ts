/**
 * Image manifests and indexes (OCI image specification, manifest.md and image-index.md; Docker schema 2), read as
 * leniently as containerd reads them: an entry of an index that we do not understand does not hide the others.
 */
import { Data, Option, Result } from "effect"
import * as Descriptor from "./Descriptor.ts"
import * as JsonField from "./JsonField.ts"
import * as ManifestShape from "./ManifestShape.ts"
import * as MediaType from "./MediaType.ts"

/** A manifest by its kind, with the descriptors in it. */
export type Manifest = Data.TaggedEnum<{
  /** The manifest of one image: its configuration and its layers, the lowest first. */
  Image: { readonly config: Descriptor.Descriptor; readonly layers: ReadonlyArray<Descriptor.Descriptor> }
  /** Several manifests under one name, one a platform. */
  Index: { readonly manifests: ReadonlyArray<Descriptor.Descriptor> }
}>
export const Manifest = Data.taggedEnum<Manifest>()

/** The bytes are not a manifest; `reason` says why. */
export class InvalidManifest extends Data.TaggedError("InvalidManifest")<{ readonly reason: string }> {
  override get message() {
    return `invalid manifest: ${this.reason}`
  }
}

const invalid = (reason: string) => Result.fail(new InvalidManifest({ reason }))

const parseJson = (bytes: Uint8Array): Result.Result<unknown, InvalidManifest> =>
  Result.try({
    try: () => JSON.parse(new TextDecoder().decode(bytes)) as unknown,
    catch: (error) => new InvalidManifest({ reason: String(error) })
  })

/** A list of descriptors, which may be missing or null; undefined if it is something else. */
const listOf = (document: unknown, name: string): ReadonlyArray<unknown> | undefined => {
  const list = JsonField.get(document, name) ?? []
  return Array.isArray(list) ? list as ReadonlyArray<unknown> : undefined
}

/** The descriptors in an index, without those that cannot be read. */
export const readIndex = (bytes: Uint8Array): Result.Result<ReadonlyArray<Descriptor.Descriptor>, InvalidManifest> =>
  Result.flatMap(parseJson(bytes), (document) => {
    if (typeof document !== "object" || document === null || Array.isArray(document)) {
      return invalid("not a JSON object")
    }
    const list = listOf(document, "manifests")
    return list === undefined
      ? invalid("manifests is not a list")
      : Result.succeed(list.flatMap((entry) => Option.toArray(Descriptor.read(entry))))
  })

const readImage = (bytes: Uint8Array): Result.Result<Manifest, InvalidManifest> =>
  Result.flatMap(parseJson(bytes), (document) => {
    const config = Descriptor.read(JsonField.get(document, "config"))
    if (Option.isNone(config)) return invalid("config is not a descriptor with a known digest and size")
    const layers: Array<Descriptor.Descriptor> = []
    for (const [number, entry] of (listOf(document, "layers") ?? [undefined]).entries()) {
      const layer = Descriptor.read(entry)
      // An image without one of its layers is another image.
      if (Option.isNone(layer)) return invalid(`layers[${number}] is not a descriptor with a known digest and size`)
      layers.push(layer.value)
    }
    return Result.succeed(Manifest.Image({ config: config.value, layers }))
  })

/** Reads a manifest or an index that containerd would take, of at most `MediaType.maxManifestSize` bytes. */
export const parse = (bytes: Uint8Array): Result.Result<Manifest, InvalidManifest> => {
  const mediaType = Option.flatMap(ManifestShape.ofBytes(bytes), ManifestShape.ownType)
  if (Option.isNone(mediaType)) return invalid("neither an image manifest nor an index")
  return MediaType.isIndex(mediaType.value)
    ? Result.map(readIndex(bytes), (manifests) => Manifest.Index({ manifests }))
    : readImage(bytes)
}

/** The content that a manifest names, in the order in which containerd fetches it: config, then layers. */
export const children: (manifest: Manifest) => ReadonlyArray<Descriptor.Descriptor> = Manifest.$match({
  Image: ({ config, layers }) => [config, ...layers],
  Index: ({ manifests }) => manifests
})
