/** Media types of images (OCI image specification 1.1; Docker image manifest version 2, schema 2). */
import { Option } from "effect"

export const imageIndex = "application/vnd.oci.image.index.v1+json"
export const imageManifest = "application/vnd.oci.image.manifest.v1+json"
export const imageConfig = "application/vnd.oci.image.config.v1+json"
export const imageLayer = "application/vnd.oci.image.layer.v1.tar"
export const imageLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip"
export const imageLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd"
export const dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
export const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
export const dockerConfig = "application/vnd.docker.container.image.v1+json"
export const dockerLayer = "application/vnd.docker.image.rootfs.diff.tar"
export const dockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
export const octetStream = "application/octet-stream"

const indexes: ReadonlySet<string> = new Set([imageIndex, dockerManifestList])
const manifests: ReadonlySet<string> = new Set([imageManifest, dockerManifest])

/** An image index or a Docker manifest list. */
export const isIndex = (mediaType: string): boolean => indexes.has(mediaType)

/** A manifest of either kind: of one image, or of several. */
export const isManifest = (mediaType: string): boolean => manifests.has(mediaType) || isIndex(mediaType)

/** Registries must accept manifests to 4 MiB (distribution specification); nothing larger is taken for one. */
export const maxManifestSize = 4 * 1024 * 1024

/**
 * The media type of a manifest, from its bytes: what its `mediaType` says, else what its shape is (the field is
 * optional in OCI manifests). None for anything that is no manifest, and for a document that reads as a manifest and as
 * an index at once (CVE-2021-41190), which containerd refuses too.
 */
export const ofManifest = (bytes: Uint8Array): Option.Option<string> => {
  if (bytes.length > maxManifestSize || bytes[0] !== 0x7b /* { */) return Option.none()
  let document: unknown
  try {
    document = JSON.parse(new TextDecoder().decode(bytes))
  } catch {
    return Option.none()
  }
  if (typeof document !== "object" || document === null) return Option.none()
  const { config, fsLayers, layers, manifests, mediaType, schemaVersion } = document as Record<string, unknown>
  if (schemaVersion !== 2 || fsLayers !== undefined) return Option.none()
  const hasImage = config !== undefined || layers !== undefined
  const hasIndex = manifests !== undefined
  if (mediaType !== undefined) {
    if (typeof mediaType !== "string" || !isManifest(mediaType)) return Option.none()
    return (isIndex(mediaType) ? hasImage : hasIndex) ? Option.none() : Option.some(mediaType)
  }
  if (hasImage && hasIndex) return Option.none()
  if (Array.isArray(manifests)) return Option.some(imageIndex)
  return Array.isArray(layers) && typeof config === "object" && config !== null
    ? Option.some(imageManifest)
    : Option.none()
}
