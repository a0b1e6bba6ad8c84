/** What the benchmarks serve: an OCI image layout, and the same blobs under the paths of a registry's API. */
import { createHash, randomBytes } from "node:crypto"
import { link, mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"

export interface Blob {
  readonly digest: string
  readonly size: number
  /** Path of the API, without a query. */
  readonly path: string
}

const mib = 1024 ** 2

/** Adds a blob of random bytes to both trees. */
export const blob = async (directory: string, size: number): Promise<Blob> => {
  const hash = createHash("sha256")
  const chunks: Array<Buffer> = []
  for (let left = size; left > 0; left -= mib) {
    const chunk = randomBytes(Math.min(mib, left))
    hash.update(chunk)
    chunks.push(chunk)
  }
  return write(directory, hash.digest("hex"), Buffer.concat(chunks), "blobs")
}

/** Adds an image manifest of about `size` bytes to both trees. */
export const manifest = async (directory: string, size: number): Promise<Blob> => {
  const descriptor = {
    mediaType: "application/vnd.oci.image.config.v1+json",
    digest: `sha256:${"1".repeat(64)}`,
    size: 2
  }
  const bytes = Buffer.from(JSON.stringify({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: descriptor,
    layers: [],
    annotations: { padding: "x".repeat(Math.max(0, size - 280)) }
  }))
  return write(directory, createHash("sha256").update(bytes).digest("hex"), bytes, "manifests")
}

const write = async (directory: string, hex: string, bytes: Buffer, kind: "blobs" | "manifests"): Promise<Blob> => {
  const digest = `sha256:${hex}`
  const path = `/v2/bench/${kind}/${digest}`
  const file = join(layout(directory), "blobs", "sha256", hex)
  await writeFile(file, bytes)
  await link(file, join(directory, "files", path))
  return { digest, size: bytes.length, path }
}

export const layout = (directory: string): string => join(directory, "layout")
export const files = (directory: string): string => join(directory, "files")

/** Makes both trees, empty. */
export const make = async (directory: string): Promise<void> => {
  for (const kind of ["blobs", "manifests"]) {
    await mkdir(join(files(directory), "v2", "bench", kind), { recursive: true })
  }
  for (const name of ["layout", "empty"]) {
    await mkdir(join(directory, name, "blobs", "sha256"), { recursive: true })
    await writeFile(join(directory, name, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }))
  }
}
