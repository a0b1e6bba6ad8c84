import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as ManifestShape from "@spegel-ts/oci/ManifestShape"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { Option, Schema } from "effect"

const descriptor = { mediaType: MediaType.imageLayer, digest: Digest.ofBytes(Buffer.from("x")), size: 1 }
const image = { config: descriptor, layers: [descriptor] }
const index = { manifests: [descriptor] }

const textOf = (document: unknown) => typeof document === "string" ? document : JSON.stringify(document)

/** The type that a document is answered as, given the types that it is kept as. */
const typeOf = (document: unknown, ...kept: ReadonlyArray<ReadonlyArray<string>>) =>
  Option.flatMap(
    ManifestShape.ofBytes(Buffer.from(textOf(document))),
    (shape) => ManifestShape.typeOf(shape, kept.map((types) => new Set(types)))
  ).pipe(Option.getOrUndefined)

const { dockerManifest, dockerManifestList, imageIndex, imageManifest } = MediaType

describe("ManifestShape", () => {
  it("tells the type that a document says, or that its fields suggest", () => {
    const json = (document: unknown) => JSON.stringify(document)
    for (
      const [document, expected] of [
        [{ schemaVersion: 2, mediaType: dockerManifest }, dockerManifest],
        [{ schemaVersion: 2, ...index }, imageIndex],
        [{ schemaVersion: 2, mediaType: dockerManifestList, ...index }, dockerManifestList],
        [{ schemaVersion: 2, ...image }, imageManifest],
        [{ ...image, schemaVersion: 1 }, imageManifest],
        [{ ...image, schemaVersion: "two" }, imageManifest],
        [image, imageManifest],
        [{ ...image, mediaType: "" }, imageManifest],
        [{ ...image, mediaType: null }, imageManifest],
        [{ ...image, layers: null }, imageManifest],
        [{ ...index, mediaType: "" }, imageIndex],
        [{ ...index, mediaType: null }, imageIndex],
        [`\n\t ${json(image)} \r\n`, imageManifest],
        [JSON.stringify(image, null, 4), imageManifest],
        [{ CONFIG: descriptor, Layers: [] }, imageManifest],
        [{ ...image, MEDIATYPE: dockerManifest }, dockerManifest],
        ["{\"manife\u017ft\u017f\":[]}", imageIndex],
        [`{"m\\u0065diaType":"${dockerManifest.replace("m", "\\u006d")}"}`, dockerManifest],
        // The last of several counts, and null is not one of them.
        [`{"mediaType":"${imageIndex}","mediaType":"${imageManifest}"}`, imageManifest],
        [`{"mediaType":"${imageManifest}","mediatype":"${dockerManifest}"}`, dockerManifest],
        [`{"mediaType":"${imageManifest}","mediaType":null}`, imageManifest],
        [`{"config":null,"config":{},"layers":5,"layers":[]}`, imageManifest],
        ["{\"annotations\":{\"a\":\"\xff}\"},\"manifests\":[]}", imageIndex],
        [{ annotations: { manifests: "]}\"[{\\", "\\\"": "\\\\" }, ...image }, imageManifest],
        [{ subject: index, ...image }, imageManifest],
        // Nothing that can be a manifest, or nobody can tell which.
        [{ ...image, mediaType: "text/html" }, undefined],
        [{ ...image, mediaType: 5 }, undefined],
        [{ ...image, mediaType: [imageManifest] }, undefined],
        [{ layers: [], config: null }, undefined],
        [{ architecture: "amd64", config: { Env: [] }, rootfs: {} }, undefined],
        [{}, undefined],
        ["\"text\"", undefined],
        ["[{}]", undefined],
        ["null", undefined],
        ["", undefined],
        ["{", undefined],
        [json(image).slice(0, -1), undefined],
        [`${json(image)}{}`, undefined],
        [`\ufeff${json(image)}`, undefined],
        [`x${json(image)}`, undefined],
        ["{\"\\x\":1}", undefined]
      ] as const
    ) {
      assert.strictEqual(typeOf(document), expected, textOf(document))
    }
  })

  it("takes no document for a manifest and an index at once, whatever it is kept as (CVE-2021-41190)", () => {
    const kept = [imageManifest, imageIndex, dockerManifest, dockerManifestList]
    for (
      const document of [
        { ...image, manifests: [] },
        { ...image, manifests: null },
        { layers: [], manifests: [] },
        { ...index, config: null },
        { mediaType: imageIndex, ...image },
        { mediaType: imageManifest, ...index },
        { mediaType: dockerManifest, ...image, fsLayers: [] },
        { ...image, fsLayers: null }
      ]
    ) {
      assert.isUndefined(typeOf(document, kept), textOf(document))
    }
  })

  it("believes what a document is kept as where that is possible, the weightiest first", () => {
    const cases: ReadonlyArray<readonly [unknown, ReadonlyArray<ReadonlyArray<string>>, string | undefined]> = [
      [image, [[dockerManifest]], dockerManifest],
      [{ ...image, mediaType: imageManifest }, [[dockerManifest]], dockerManifest],
      [{ ...image, mediaType: "text/html" }, [[imageManifest]], imageManifest],
      [{ layers: [] }, [[imageManifest]], imageManifest],
      [index, [[dockerManifestList]], dockerManifestList],
      [image, [[], [dockerManifest], [imageManifest]], dockerManifest],
      // A record that is broken, or of another kind than the bytes, tells nothing.
      [image, [["application/octet-stream"]], imageManifest],
      [image, [["application/octet-stream", dockerManifest]], dockerManifest],
      [image, [["application/octet-stream"], [dockerManifest]], dockerManifest],
      [index, [[imageManifest]], imageIndex],
      [image, [[dockerManifestList], [dockerManifest]], dockerManifest],
      // Kept as two: the bytes say which, or nobody does.
      [{ ...image, mediaType: imageManifest }, [[dockerManifest, imageManifest]], imageManifest],
      [image, [[dockerManifest, imageManifest]], undefined],
      ["layer", [[imageManifest]], undefined]
    ]
    for (const [document, kept, expected] of cases) {
      assert.strictEqual(typeOf(document, ...kept), expected, `${textOf(document)} kept as ${JSON.stringify(kept)}`)
    }
  })

  it("reads a document in pieces as it reads it at once", () => {
    const text = JSON.stringify({
      annotations: { a: "\\\"}]", nested: [[{ b: "{" }]] },
      mediaType: dockerManifest,
      ...image
    })
    const bytes = Buffer.from(text)
    for (let size = 1; size < bytes.length; size++) {
      const reader = new ManifestShape.ManifestReader()
      for (let at = 0; at < bytes.length; at += size) reader.push(bytes.subarray(at, at + size))
      assert.deepStrictEqual(reader.end(), ManifestShape.ofBytes(bytes), String(size))
    }
  })

  it("takes what containerd takes in size, and a bounded number of keys", () => {
    const largest = JSON.stringify(index).padEnd(4 * 1048 * 1048)
    assert.strictEqual(typeOf(largest), imageIndex)
    assert.isUndefined(typeOf(`${largest} `))
    const keys = Object.fromEntries(Array.from({ length: 10_000 }, (_, key) => [`key ${key}`, 1]))
    assert.isUndefined(typeOf({ ...keys, ...index }))
  })

  it.prop("agrees with a whole parse on any document", [Schema.Json], ([json]) => {
    const isObject = typeof json === "object" && json !== null && !Array.isArray(json)
    const known = isObject && Object.keys(json).some((key) => key.toLowerCase() === "fslayers")
    if (known) return
    for (const written of [JSON.stringify(json), JSON.stringify(json, null, 2)]) {
      assert.strictEqual(Option.isSome(ManifestShape.ofBytes(Buffer.from(written))), isObject, written)
    }
  })
})
