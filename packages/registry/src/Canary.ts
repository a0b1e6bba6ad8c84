/**
 * A tiny image that only a mirror can serve. `spegel doctor` pulls it through containerd, which proves that containerd reads
 * hosts.toml and reaches this mirror. No upstream can have it: each pull is from a repository with a random name. The mirror serves
 * it to its own node's containerd alone, and it is never advertised.
 */
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { randomBytes } from "node:crypto"
import type { ContentRequest } from "./ContentId.ts"

/** A part of the image. */
export interface CanaryObject {
  readonly digest: Digest.Digest
  readonly mediaType: string
  readonly bytes: Uint8Array
}

/** Architectures of nodes, by their names in images. containerd does not unpack an image of another. */
const architectures = ["amd64", "arm64"] as const

/** An archive without files. Its size is unusual, so that no other image shares it. */
const layer = Buffer.alloc(2560)

const objectOf = (mediaType: string, bytes: Uint8Array): CanaryObject => ({
  digest: Digest.ofBytes(bytes),
  mediaType,
  bytes
})

const descriptorOf = ({ bytes, digest, mediaType }: CanaryObject) => ({ mediaType, digest, size: bytes.length })

/** The manifest, then what it refers to. */
const imageFor = (architecture: string): readonly [CanaryObject, CanaryObject, CanaryObject] => {
  const layerObject = objectOf(MediaType.imageLayer, layer)
  const config = objectOf(
    MediaType.imageConfig,
    Buffer.from(JSON.stringify({
      architecture,
      os: "linux",
      config: { Labels: { "org.opencontainers.image.title": "canary of spegel doctor" } },
      rootfs: { type: "layers", diff_ids: [layerObject.digest] }
    }))
  )
  const manifest = objectOf(
    MediaType.imageManifest,
    Buffer.from(JSON.stringify({
      schemaVersion: 2,
      mediaType: MediaType.imageManifest,
      config: descriptorOf(config),
      layers: [descriptorOf(layerObject)]
    }))
  )
  return [manifest, config, layerObject]
}

const images = new Map(architectures.map((architecture) => [architecture as string, imageFor(architecture)]))
const objects = new Map([...images.values()].flat().map((object) => [object.digest, object]))

const repository = /^spegel-canary\/[0-9a-f]{32}$/

/** Whether a digest is one of the canary's, which no node advertises. */
export const isCanary = (digest: string): boolean => objects.has(digest as Digest.Digest)

/** Whether a request asks in a repository of canaries. */
export const isAsked = (request: ContentRequest): boolean => repository.test(request.repository)

const digestOf = (request: ContentRequest): Digest.Digest | undefined => {
  if (request._tag === "Blob") return request.digest
  return request.reference._tag === "Digest" ? request.reference.digest : undefined
}

/** The part that a request asks for; undefined if it is none. */
export const find = (request: ContentRequest): CanaryObject | undefined => {
  const digest = digestOf(request)
  const found = digest === undefined ? undefined : objects.get(digest)
  return found !== undefined && (found.mediaType === MediaType.imageManifest) === (request._tag === "Manifest")
    ? found
    : undefined
}

/** An image to pull. */
export interface CanaryImage {
  readonly repository: string
  /** The digest of its manifest. */
  readonly digest: Digest.Digest
}

/** A repository that nobody else knows, with the image for this machine; undefined if there is none for it. */
export const make = (): CanaryImage | undefined => {
  const image = images.get(process.arch === "x64" ? "amd64" : process.arch)
  return image === undefined
    ? undefined
    : { repository: `spegel-canary/${randomBytes(16).toString("hex")}`, digest: image[0].digest }
}
