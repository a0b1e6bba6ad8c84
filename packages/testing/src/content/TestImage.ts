import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"

/** A tiny image of one config and one layer, different for each seed. */
export const testImage = (seed: string) => {
  const layer = Buffer.from(`layer of ${seed} `.repeat(100))
  const config = Buffer.from(JSON.stringify({ architecture: "amd64", os: "linux", seed }))
  const describe = (mediaType: string, bytes: Uint8Array) =>
    new Descriptor({ mediaType, digest: Digest.ofBytes(bytes), size: bytes.length })
  const manifest = Buffer.from(JSON.stringify({
    schemaVersion: 2,
    mediaType: MediaType.imageManifest,
    config: describe(MediaType.imageConfig, config),
    layers: [describe(MediaType.imageLayer, layer)]
  }))
  return { layer, config, manifest, descriptor: describe(MediaType.imageManifest, manifest) }
}
