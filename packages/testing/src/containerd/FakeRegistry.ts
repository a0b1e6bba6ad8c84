/**
 * A registry that has an image for any tag in any repository. All images share one small layer. The tag `a-also-b` is the image of
 * `a`.
 */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import { mkdir, writeFile } from "node:fs/promises"
import { createServer } from "node:http"
import { join } from "node:path"
import * as LocalServer from "../network/LocalServer.ts"
import { run } from "../process/Command.ts"

const digestOf = (bytes: Uint8Array) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`

/** An empty tar archive. */
const layer = Buffer.alloc(1024)
const layerDigest = digestOf(layer)
const manifestType = "application/vnd.oci.image.manifest.v1+json"

const json = (value: unknown) => Buffer.from(JSON.stringify(value))

const imageOf = (name: string) => {
  const [tag = ""] = name.split("-also-")
  const config = json({
    architecture: process.arch === "x64" ? "amd64" : process.arch,
    os: "linux",
    config: { Labels: { tag } },
    rootfs: { type: "layers", diff_ids: [layerDigest] }
  })
  const manifest = json({
    schemaVersion: 2,
    mediaType: manifestType,
    config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: digestOf(config), size: config.length },
    layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar", digest: layerDigest, size: layer.length }]
  })
  return { config, manifest }
}

/** The digest that a tag points to. */
export const manifestDigest = (tag: string): string => digestOf(imageOf(tag).manifest)

/** Writes an image into an archive in `directory`, as `docker save` does; gives the path. */
export const save = Effect.fnUntraced(function*(directory: string, name: string, tag: string) {
  const { config, manifest } = imageOf(tag)
  const layout = join(directory, `layout-${tag}`)
  yield* Effect.promise(async () => {
    await mkdir(join(layout, "blobs/sha256"), { recursive: true })
    for (const blob of [config, manifest, layer]) {
      await writeFile(join(layout, "blobs", digestOf(blob).replace(":", "/")), blob)
    }
    await writeFile(join(layout, "oci-layout"), json({ imageLayoutVersion: "1.0.0" }))
    await writeFile(
      join(layout, "index.json"),
      json({
        schemaVersion: 2,
        manifests: [{
          mediaType: manifestType,
          digest: digestOf(manifest),
          size: manifest.length,
          annotations: { "io.containerd.image.name": `${name}:${tag}`, "org.opencontainers.image.ref.name": tag }
        }]
      })
    )
  })
  const archive = `${layout}.tar`
  yield* run("tar", ["-C", layout, "-cf", archive, "oci-layout", "index.json", "blobs"])
  return archive
})

export interface FakeRegistryOptions {
  /** Whether it answers everything with 404. */
  readonly isEmpty?: boolean
  /** Default: 127.0.0.1. */
  readonly address?: string
}

/**
 * Starts a registry, which ends with the scope; `requests` has all requests as `METHOD path`, `authorizations` the header of each, empty
 * if there was none.
 */
export const start = Effect.fnUntraced(function*(options?: FakeRegistryOptions) {
  const address = options?.address ?? "127.0.0.1"
  const objects = new Map<string, Buffer>([[layerDigest, layer]])
  const requests: Array<string> = []
  const authorizations: Array<string> = []
  const find = (kind: string, reference: string) => {
    if (options?.isEmpty === true) return undefined
    if (kind === "manifests" && !reference.startsWith("sha256:")) {
      const { config, manifest } = imageOf(reference)
      objects.set(digestOf(config), config)
      objects.set(digestOf(manifest), manifest)
      return manifest
    }
    return objects.get(reference)
  }
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`)
    authorizations.push(request.headers.authorization ?? "")
    const [, kind = "", reference = ""] = /\/(manifests|blobs)\/([^/?]+)/.exec(request.url ?? "") ?? []
    const found = find(kind, reference)
    if (found === undefined) return response.writeHead(404, { "content-type": "application/json" }).end(`{"errors":[]}`)
    response.writeHead(200, {
      "content-type": kind === "manifests" ? manifestType : "application/octet-stream",
      "content-length": found.length,
      "docker-content-digest": digestOf(found)
    })
    return response.end(request.method === "HEAD" ? undefined : found)
  })
  const port = yield* LocalServer.listen(server, address)
  const host = `${address.includes(":") ? `[${address}]` : address}:${port}`
  return { host, url: `http://${host}`, requests, authorizations }
})
