/** Media types of images (OCI image specification 1.1; Docker image manifest version 2, schema 2). */

/** Several manifests under one name, one a platform. */
export const imageIndex = "application/vnd.oci.image.index.v1+json"
/** The manifest of one image. */
export const imageManifest = "application/vnd.oci.image.manifest.v1+json"
/** The configuration of an image. */
export const imageConfig = "application/vnd.oci.image.config.v1+json"
/** A layer, not compressed. */
export const imageLayer = "application/vnd.oci.image.layer.v1.tar"
/** Docker's image index. */
export const dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
/** Docker's manifest of one image. */
export const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
/** Bytes of no known type: what blobs are answered as. */
export const octetStream = "application/octet-stream"

const indexes: ReadonlySet<string> = new Set([imageIndex, dockerManifestList])
const manifests: ReadonlySet<string> = new Set([imageManifest, dockerManifest])

/** An image index or a Docker manifest list. */
export const isIndex = (mediaType: string): boolean => indexes.has(mediaType)

/** A manifest of one image. */
export const isImage = (mediaType: string): boolean => manifests.has(mediaType)

/** The most that containerd takes for a manifest, in bytes: its own arithmetic, a little more than 4 MiB. */
export const maxManifestSize = 4 * 1048 * 1048

/** The media type in a `Content-Type` header, without parameters, as containerd reads it. */
export const ofHeader = (contentType: string): string => contentType.replace(/;.*$/s, "").trim()
