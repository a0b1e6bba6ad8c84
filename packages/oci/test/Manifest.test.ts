import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Manifest from "@spegel-ts/oci/Manifest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { Option, Result, Schema } from "effect"

const bytes = (value: unknown) => Buffer.from(JSON.stringify(value))
const descriptor = { mediaType: MediaType.imageLayer, digest: Digest.ofBytes(Buffer.from("x")), size: 1 }

describe("Manifest", () => {
  it("knows manifests by what they say, else by their shape", () => {
    for (
      const [document, expected] of [
        [{ schemaVersion: 2, mediaType: MediaType.dockerManifest }, Option.some(MediaType.dockerManifest)],
        [{ schemaVersion: 2, manifests: [] }, Option.some(MediaType.imageIndex)],
        [{ schemaVersion: 2, config: descriptor, layers: [] }, Option.some(MediaType.imageManifest)],
        [{ schemaVersion: 1, config: descriptor, layers: [] }, Option.none()],
        [{ schemaVersion: 2, mediaType: "text/html", layers: [] }, Option.none()],
        [{ schemaVersion: 2, mediaType: 5, manifests: [] }, Option.none()],
        [{ schemaVersion: 2, config: null, layers: [] }, Option.none()],
        [{ architecture: "amd64" }, Option.none()],
        ["text", Option.none()]
      ] as const
    ) {
      assert.deepStrictEqual(MediaType.ofManifest(bytes(document)), expected)
    }
    assert.deepStrictEqual(MediaType.ofManifest(Buffer.from("{")), Option.none())
  })

  it("takes no document for a manifest and an index at once (CVE-2021-41190)", () => {
    const image = { config: descriptor, layers: [] }
    for (
      const document of [
        { ...image, manifests: [] },
        { layers: [], manifests: [] },
        { mediaType: MediaType.imageIndex, ...image },
        { mediaType: MediaType.imageIndex, manifests: [], config: descriptor },
        { mediaType: MediaType.imageManifest, ...image, manifests: [] },
        { mediaType: MediaType.dockerManifest, ...image, fsLayers: [] }
      ]
    ) {
      const written = bytes({ schemaVersion: 2, ...document })
      assert.deepStrictEqual(MediaType.ofManifest(written), Option.none(), written.toString())
      assert.isTrue(Result.isFailure(Manifest.parse(written)))
    }
  })

  it("reads 4 MiB, and no layer that does not begin as an object", () => {
    const index = (size: number) => Buffer.from("{\"schemaVersion\":2,\"manifests\":[]}".padEnd(size))
    assert.deepStrictEqual(MediaType.ofManifest(index(0)), Option.some(MediaType.imageIndex))
    assert.deepStrictEqual(MediaType.ofManifest(index(MediaType.maxManifestSize)), Option.some(MediaType.imageIndex))
    assert.deepStrictEqual(MediaType.ofManifest(index(MediaType.maxManifestSize + 1)), Option.none())
    assert.deepStrictEqual(MediaType.ofManifest(Buffer.from("[{}]")), Option.none())
  })

  it("lists what a manifest names, the config first", () => {
    const config = { ...descriptor, mediaType: MediaType.imageConfig }
    const manifest = Result.getOrThrow(Manifest.parse(bytes({ schemaVersion: 2, config, layers: [descriptor] })))
    assert.deepStrictEqual(Manifest.children(manifest).map(({ mediaType }) => mediaType), [
      MediaType.imageConfig,
      MediaType.imageLayer
    ])
  })

  it("says where a manifest goes wrong", () => {
    const wrong = { schemaVersion: 2, config: { ...descriptor, size: -1 }, layers: [] }
    assert.include(Result.getOrThrow(Result.flip(Manifest.parse(bytes(wrong)))).message, "size")
    assert.include(Result.getOrThrow(Result.flip(Manifest.parse(Buffer.from("no")))).message, "neither")
  })

  it.prop("any bytes give a manifest or an error, never a crash", [Schema.Uint8Array], ([any]) => {
    Manifest.parse(any)
  })
})
