/** An OCI image layout in one tar file, the same bytes for the same files: what `ctr image import` and `skopeo` read. */
import { Data, Effect } from "effect"
import { packTar, type TarSource } from "modern-tar/fs"
import { createHash, type Hash } from "node:crypto"
import { createWriteStream } from "node:fs"
import { mkdtemp, readdir, rm, stat } from "node:fs/promises"
import { join, relative } from "node:path"
import { PassThrough } from "node:stream"
import { pipeline } from "node:stream/promises"
import { createGzip } from "node:zlib"
import type { ImageDefinition } from "./ImageDefinition.ts"

/** The archive was not written. */
export class ArchiveFailed extends Data.TaggedError("ArchiveFailed")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `${this.path}: ${this.reason}`
  }
}

export interface OciArchiveOptions {
  readonly path: string
  /** Full name with a tag. */
  readonly name: string
  /** As OCI says it: `amd64`, `arm64`. */
  readonly architecture: string
  readonly version: string
  readonly definition: ImageDefinition
  /** Directories that become a layer each, the lowest first. */
  readonly trees: ReadonlyArray<string>
}

interface Descriptor {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
}

/** Packs with nothing of this machine but content and mode. */
const pack = (sources: ReadonlyArray<TarSource>) =>
  packTar(sources, { map: (header) => Object.assign(header, { mtime: new Date(0), uid: 0, gid: 0 }) })

const hashing = (hash: Hash) =>
  new PassThrough({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk)
      done(null, chunk)
    }
  })

const digestOf = (hash: Hash) => `sha256:${hash.digest("hex")}`

/** Files of a tree, in an order that does not depend on the machine. */
const sourcesOf = async (tree: string): Promise<ReadonlyArray<TarSource>> => {
  const entries = await readdir(tree, { recursive: true, withFileTypes: true })
  const paths = entries.filter((entry) => entry.isFile()).map(({ name, parentPath }) => join(parentPath, name)).sort()
  return Promise.all(paths.map(async (source): Promise<TarSource> => {
    const mode = (await stat(source)).mode & 0o777
    return { type: "file", source, target: relative(tree, source), mode }
  }))
}

/** Packs a tree into `path`, compressed. */
const layer = async (tree: string, path: string) => {
  const [plain, compressed] = [createHash("sha256"), createHash("sha256")]
  await pipeline(
    pack(await sourcesOf(tree)),
    hashing(plain),
    createGzip({ level: 6 }),
    hashing(compressed),
    createWriteStream(path)
  )
  const mediaType = "application/vnd.oci.image.layer.v1.tar+gzip"
  const descriptor: Descriptor = { mediaType, digest: digestOf(compressed), size: (await stat(path)).size }
  return { path, descriptor, diffId: digestOf(plain) }
}

const json = (mediaType: string, value: unknown) => {
  const content = Buffer.from(JSON.stringify(value))
  const digest = digestOf(createHash("sha256").update(content))
  const descriptor: Descriptor = { mediaType, digest, size: content.length }
  return { content, descriptor }
}

const blob = ({ digest }: Descriptor) => `blobs/${digest.replace(":", "/")}`

const write = async (
  { architecture, definition, name, path, trees, version }: OciArchiveOptions,
  temporary: string
) => {
  const layers = await Promise.all(trees.map((tree, index) => layer(tree, join(temporary, String(index)))))
  const config = json("application/vnd.oci.image.config.v1+json", {
    architecture,
    os: "linux",
    config: {
      User: definition.user,
      Env: Object.entries(definition.environment).map(([key, value]) => `${key}=${value}`),
      Entrypoint: definition.entrypoint,
      Labels: { "org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "Apache-2.0" }
    },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) }
  })
  const manifest = json("application/vnd.oci.image.manifest.v1+json", {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: config.descriptor,
    layers: layers.map(({ descriptor }) => descriptor)
  })
  const index = json("application/vnd.oci.image.index.v1+json", {
    schemaVersion: 2,
    manifests: [{
      ...manifest.descriptor,
      platform: { architecture, os: "linux" },
      annotations: { "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.split(":").at(-1) }
    }]
  })
  const content = (target: string, content: string | Buffer): TarSource => ({
    type: "content",
    target,
    content,
    mode: 0o444
  })
  await pipeline(
    pack([
      content("oci-layout", JSON.stringify({ imageLayoutVersion: "1.0.0" })),
      content("index.json", index.content),
      content(blob(manifest.descriptor), manifest.content),
      content(blob(config.descriptor), config.content),
      ...layers.map(({ descriptor, path: source }): TarSource => ({
        type: "file",
        source,
        target: blob(descriptor),
        mode: 0o444
      }))
    ]),
    createWriteStream(path)
  )
  return { digest: manifest.descriptor.digest, bytes: layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0) }
}

/** Writes the archive; gives the digest of its manifest, and the bytes that a pull of it fetches. */
export const make = Effect.fn("OciArchive.make")(function*(options: OciArchiveOptions) {
  const failed = (cause: unknown) =>
    new ArchiveFailed({ path: options.path, reason: cause instanceof Error ? cause.message : String(cause) })
  const temporary = yield* Effect.acquireRelease(
    Effect.tryPromise({ try: () => mkdtemp(`${options.path}.`), catch: failed }),
    (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
  )
  return yield* Effect.tryPromise({ try: () => write(options, temporary), catch: failed })
}, Effect.scoped)
