/** Real OCI images whose layers are tar archives of noise, the same in each run. */
import type * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import type { Reference } from "@spegel-ts/oci/Reference"
import { Effect } from "effect"
import { packTar } from "modern-tar"
import { createCipheriv } from "node:crypto"
import { arch } from "node:os"

/** Bytes that do not compress: the key stream of a cipher, whose key is made of `seed`. */
export const noise = (seed: number, size: number): Uint8Array => {
  const key = Buffer.alloc(16)
  key.writeUInt32BE(seed)
  return createCipheriv("aes-128-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(size))
}

/** Layers that an image may have: the noise of two seeds does not overlap. */
const maxLayers = 256

const architectures = new Map([["x64", "amd64"], ["arm64", "arm64"]])

/** An image that was written to a layout. */
export interface RandomImage {
  readonly reference: Reference
  /** Manifest, config and layers, in the order in which a client fetches them. */
  readonly objects: ReadonlyArray<{ readonly kind: string; readonly descriptor: Descriptor }>
  /** The size of all of them, in bytes. */
  readonly bytes: number
}

/** Writes an image into a layout, with no more than one layer in memory. */
export const write = Effect.fn("RandomImage.write")(function*(options: {
  readonly writer: OciLayoutWriter.OciLayoutWriter
  readonly reference: Reference
  /** The size of the only file of each layer, in bytes. */
  readonly layerSizes: ReadonlyArray<number>
  /** Images of other seeds share no layer with this one. */
  readonly seed?: number
  /** A program that containers run, in a layer below the others: an executable that needs no libraries. */
  readonly program?: Uint8Array
}) {
  const { layerSizes, program, reference, seed = 0, writer } = options

  const store = Effect.fnUntraced(function*(mediaType: string, bytes: Uint8Array) {
    const digest = Digest.ofBytes(bytes)
    const ingest = yield* writer.ingest(digest, bytes.length)
    yield* ingest.write(bytes)
    yield* ingest.commit
    return new Descriptor({ mediaType, digest, size: bytes.length })
  }, Effect.scoped)

  const storeLayer = Effect.fnUntraced(function*(name: string, body: Uint8Array, mode: number) {
    const header = { name, size: body.length, type: "file" as const, mode, mtime: new Date(0) }
    return yield* store(MediaType.imageLayer, yield* Effect.promise(() => packTar([{ header, body }])))
  })

  const programLayer = program === undefined ? [] : [yield* storeLayer("program", program, 0o755)]
  const layerDescriptors = programLayer.concat(
    yield* Effect.forEach(
      layerSizes,
      (size, index) => storeLayer(`layer-${index}.bin`, noise(seed * maxLayers + index, size), 0o644)
    )
  )
  const json = (value: unknown) => Buffer.from(JSON.stringify(value))
  const config = yield* store(
    MediaType.imageConfig,
    json({
      architecture: architectures.get(arch()) ?? arch(),
      os: "linux",
      config: program === undefined ? {} : { Entrypoint: ["/program"] },
      // The layers are not compressed: their digests are those of the archives themselves.
      rootfs: { type: "layers", diff_ids: layerDescriptors.map(({ digest }) => digest) }
    })
  )
  const manifest = yield* store(
    MediaType.imageManifest,
    json({ schemaVersion: 2, mediaType: MediaType.imageManifest, config, layers: layerDescriptors })
  )
  yield* writer.tag(reference, manifest)
  const objects = [
    { kind: "manifest", descriptor: manifest },
    { kind: "config", descriptor: config },
    ...layerDescriptors.map((descriptor, index) => ({ kind: `layer ${index + 1}`, descriptor }))
  ]
  const bytes = objects.reduce((sum, { descriptor }) => sum + descriptor.size, 0)
  return { reference, objects, bytes } satisfies RandomImage
})
