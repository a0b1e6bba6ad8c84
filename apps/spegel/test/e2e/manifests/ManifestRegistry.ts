/** A registry of one tiny image in each spelling, which calls each document what its row says. */
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as LocalServer from "@spegel-ts/testing/network/LocalServer"
import { Effect } from "effect"
import { packTar } from "modern-tar"
import { createServer } from "node:http"
import { arch } from "node:os"
import type { Row } from "./Spellings.ts"

const address = "127.0.0.100"

interface Document {
  readonly bytes: Buffer
  readonly contentType: string
}

const architectures = new Map([["x64", "amd64"], ["arm64", "arm64"]])

const json = (value: unknown) => Buffer.from(JSON.stringify(value))

/** No two registries have a manifest in common: what one pull has brought is of no use to the next. */
export const start = Effect.fnUntraced(function*(rows: ReadonlyArray<Row>) {
  const blobs = new Map<string, Buffer>()
  const manifests = new Map<string, Document>()
  /** By repository: which manifest its tag is, and what it is pulled by, one after the other. */
  const images = new Map<string, { readonly digest: string; readonly references: ReadonlyArray<string> }>()

  const put = (bytes: Buffer) => {
    const digest = Digest.ofBytes(bytes)
    blobs.set(digest, bytes)
    return { digest, size: bytes.length }
  }
  const header = { name: "file", size: 5, type: "file" as const, mtime: new Date(0) }
  const layer = put(Buffer.from(yield* Effect.promise(() => packTar([{ header, body: "hello" }]))))
  const platform = { os: "linux", architecture: architectures.get(arch()) ?? arch() }

  const publish = (host: string) => {
    for (const row of rows) {
      const config = put(json({
        ...platform,
        config: { Labels: { "registry": host, "row": row.name } },
        rootfs: { type: "layers", diff_ids: [layer.digest] }
      }))
      const parts = {
        config: { mediaType: MediaType.imageConfig, ...config },
        layers: [{ mediaType: MediaType.imageLayer, ...layer }]
      }
      const childType = row.child === undefined ? MediaType.imageManifest : MediaType.dockerManifest
      const childBytes = row.child?.(parts) ?? json({ schemaVersion: 2, mediaType: childType, ...parts })
      const child = { mediaType: childType, ...put(childBytes), platform }
      manifests.set(child.digest, { bytes: childBytes, contentType: childType })
      const bytes = row.document({ ...parts, child })
      const { digest } = put(bytes)
      manifests.set(digest, { bytes, contentType: row.contentType })
      const references = { tag: ["v1"], digest: [digest], child: ["v1", child.digest] }[row.by]
      images.set(row.name, { digest, references })
    }
  }

  /** Requests for manifests, as `HEAD name reference`. */
  const requests: Array<string> = []
  const server = createServer((request, response) => {
    const [, repository = "", kind, reference = ""] =
      /^\/v2\/(.+)\/(manifests|blobs)\/([^?]+)/.exec(request.url ?? "") ?? []
    if (kind === "manifests") requests.push(`${request.method} ${repository} ${reference}`)
    const digest = reference === "v1" ? images.get(repository)?.digest ?? "" : reference
    const bytes = blobs.get(digest)
    const contentType = kind === "blobs" ? MediaType.octetStream : manifests.get(digest)?.contentType
    if (bytes === undefined || contentType === undefined) {
      response.writeHead(404).end()
      return
    }
    response.writeHead(200, {
      "content-length": bytes.length,
      "docker-content-digest": digest,
      ...(contentType === "" ? {} : { "content-type": contentType })
    })
    response.end(request.method === "HEAD" ? undefined : bytes)
  })
  const host = `${address}:${yield* LocalServer.listen(server, address)}`
  publish(host)

  return {
    host,
    requests,
    referencesOf: ({ name }: Row) => images.get(name)?.references ?? [],
    /** The full name of a row's image, by a tag or a digest. */
    nameOf: ({ name }: Row, reference: string) => `${host}/${name}${reference === "v1" ? ":" : "@"}${reference}`
  }
})

export type ManifestRegistry = Effect.Success<ReturnType<typeof start>>
