/** The content of benchmarks: an OCI image layout, and the same blobs under the paths of a registry's API. */
import { createHash, randomBytes } from "node:crypto"
import { link, mkdir, open, rename, writeFile } from "node:fs/promises"
import { join } from "node:path"

export interface Blob {
  readonly digest: string
  readonly size: number
  /** The path in the API, without a query. */
  readonly path: string
}

const mib = 1024 ** 2

/** Adds a blob of random bytes to both trees. */
export const blob = async (directory: string, size: number): Promise<Blob> => {
  const hash = createHash("sha256")
  const written = join(directory, "new-blob")
  const file = await open(written, "w")
  for (let left = size; left > 0; left -= mib) {
    const chunk = randomBytes(Math.min(mib, left))
    hash.update(chunk)
    await file.write(chunk)
  }
  await file.close()
  return add(directory, hash.digest("hex"), size, written, "blobs")
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
  const written = join(directory, "new-manifest")
  await writeFile(written, bytes)
  return add(directory, createHash("sha256").update(bytes).digest("hex"), bytes.length, written, "manifests")
}

const add = async (
  directory: string,
  hex: string,
  size: number,
  written: string,
  kind: "blobs" | "manifests"
): Promise<Blob> => {
  const digest = `sha256:${hex}`
  const path = `/v2/bench/${kind}/${digest}`
  const file = join(layout(directory), "blobs", "sha256", hex)
  await rename(written, file)
  await link(file, join(directory, "files", path))
  return { digest, size, path }
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
