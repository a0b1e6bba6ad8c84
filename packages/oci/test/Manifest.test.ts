import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Manifest from "@spegel-ts/oci/Manifest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { Result, Schema } from "effect"

const bytes = (value: unknown) => Buffer.from(JSON.stringify(value))
const descriptor = { mediaType: MediaType.imageLayer, digest: Digest.ofBytes(Buffer.from("x")), size: 1 }

describe("Manifest", () => {
  const config = { ...descriptor, mediaType: MediaType.imageConfig }

  it("lists what a manifest names, the config first", () => {
    const manifest = Result.getOrThrow(Manifest.parse(bytes({ schemaVersion: 2, config, layers: [descriptor] })))
    assert.deepStrictEqual(Manifest.children(manifest).map(({ mediaType }) => mediaType), [
      MediaType.imageConfig,
      MediaType.imageLayer
    ])
  })

  it("passes over what an index names in a way that is not known, and nothing else", () => {
    const other = { mediaType: "a/b", size: 3 }
    const manifests = [
      { ...other, digest: `blake3:${"a".repeat(64)}` },
      { ...other, digest: `sha384:${"a".repeat(96)}` },
      { ...other, digest: "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564" },
      null,
      {},
      [],
      "text",
      { ...descriptor, digest: null },
      { ...descriptor, size: -1 },
      { ...descriptor, size: "1" },
      { ...descriptor, annotations: null, platform: null },
      { ...descriptor, annotations: { kept: "yes", dropped: null, also: 5 }, platform: {} },
      { ...descriptor, annotations: "text", platform: { os: "linux", architecture: "arm64", variant: null } },
      { mediaType: null, digest: descriptor.digest, size: null },
      { DIGEST: descriptor.digest, MediaType: "a/b", siZe: 7 }
    ]
    const read = Result.getOrThrow(Manifest.readIndex(bytes({ manifests })))
    assert.deepStrictEqual(JSON.parse(JSON.stringify(read)), [
      descriptor,
      { ...descriptor, annotations: { kept: "yes" } },
      { ...descriptor, platform: { os: "linux", architecture: "arm64" } },
      { mediaType: "", digest: descriptor.digest, size: 0 },
      { mediaType: "a/b", digest: descriptor.digest, size: 7 }
    ])
  })

  it("reads an index without a list as an empty one", () => {
    for (const document of [{}, { schemaVersion: 2, manifests: null }, { mediaType: null, manifests: [] }]) {
      assert.deepStrictEqual(Result.getOrThrow(Manifest.readIndex(bytes(document))), [])
    }
    for (const text of ["", "{", "[]", "null", "5", "{\"manifests\":{}}"]) {
      assert.isTrue(Result.isFailure(Manifest.readIndex(Buffer.from(text))), text)
    }
  })

  it("says where a manifest goes wrong", () => {
    const messageOf = (document: unknown) => Result.getOrThrow(Result.flip(Manifest.parse(bytes(document)))).message
    assert.include(messageOf({ config: { ...config, size: -1 }, layers: [] }), "config is not a descriptor")
    assert.include(messageOf({ config, layers: [descriptor, null] }), "layers[1] is not a descriptor")
    assert.include(messageOf("no"), "neither")
  })

  it.prop("any bytes give a manifest or an error, never a crash", [Schema.Uint8Array], ([any]) => {
    Manifest.parse(any)
  })
})
