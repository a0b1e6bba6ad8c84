import { assert, describe, it } from "@effect/vitest"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as PullClient from "@spegel-ts/testing/content/PullClient"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as LocalServer from "@spegel-ts/testing/network/LocalServer"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import { createServer, type ServerResponse } from "node:http"

const layer = RandomImage.noise(1, 1_000_000)
const config = Buffer.from("{}")
const describeBytes = (mediaType: string, bytes: Uint8Array) => ({
  mediaType,
  digest: Digest.ofBytes(bytes),
  size: bytes.length
})
const manifest = Buffer.from(JSON.stringify({
  schemaVersion: 2,
  mediaType: MediaType.imageManifest,
  config: describeBytes(MediaType.imageConfig, config),
  layers: [describeBytes(MediaType.imageLayer, layer)]
}))
const layerDigest = Digest.ofBytes(layer)
const objects = new Map<string, Uint8Array>([
  ["manifests/v1", manifest],
  [`manifests/${Digest.ofBytes(manifest)}`, manifest],
  [`blobs/${Digest.ofBytes(config)}`, config],
  [`blobs/${layerDigest}`, layer]
])

type Behaviour = (path: string, start: number, bytes: Uint8Array | undefined, response: ServerResponse) => void

const honest: Behaviour = (_path, start, bytes, response) => {
  if (bytes === undefined) return response.writeHead(404).end()
  response.writeHead(start === 0 ? 200 : 206, {
    "content-type": MediaType.imageManifest,
    "content-length": bytes.length - start,
    "docker-content-digest": Digest.ofBytes(bytes)
  }).end(bytes.subarray(start))
}

const startHost = (behave: Behaviour) => {
  const server = createServer((request, response) => {
    const path = /^\/v2\/team\/app\/([^?]+)\?ns=registry\.example$/.exec(request.url ?? "")?.[1] ?? ""
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0)
    behave(path, start, objects.get(path), response)
  })
  return Effect.map(LocalServer.listen(server), (port) => `http://127.0.0.1:${port}`)
}

const pull = (mirror: Behaviour) =>
  Effect.gen(function*() {
    const writer = yield* OciLayoutWriter.make({ root: yield* temporary })
    const pulled = yield* PullClient.pull({
      writer,
      mirror: yield* startHost(mirror),
      upstream: yield* startHost(honest),
      reference: { registry: "registry.example", repository: "team/app" },
      tag: "v1",
      onProgress: () => Effect.void
    })
    assert.isTrue(Buffer.from(layer).equals(yield* writer.read(layerDigest)))
    return new Map(pulled.map(({ host, kind }) => [kind, host]))
  })

/** Sends the layer's first bytes and then ends the connection. */
const breakOff: Behaviour = (path, start, bytes, response) => {
  if (path !== `blobs/${layerDigest}` || bytes === undefined) return honest(path, start, bytes, response)
  response.writeHead(start === 0 ? 200 : 206, { "content-length": bytes.length - start })
  response.write(bytes.subarray(start, start + 300_000), () => setTimeout(() => response.destroy(), 10))
}

describe("PullClient", { timeout: 30_000 }, () => {
  it.live("takes what the mirror has, and the rest from upstream", () =>
    Effect.gen(function*() {
      const hosts = yield* pull((path, start, bytes, response) =>
        honest(path, start, path === `blobs/${layerDigest}` ? undefined : bytes, response)
      )
      assert.deepStrictEqual([hosts.get("manifest"), hosts.get("config"), hosts.get("layer 1")], [
        "mirror",
        "mirror",
        "upstream"
      ])
    }))

  it.live("goes on where a body broke off, and with upstream where the mirror gives up", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* pull(breakOff)).get("layer 1"), "mirror")
      const givesUp = yield* pull((path, start, bytes, response) =>
        breakOff(path, start, start > 0 ? undefined : bytes, response)
      )
      assert.strictEqual(givesUp.get("layer 1"), "upstream")
    }))

  it.live("keeps nothing whose digest is wrong", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(pull((path, start, bytes, response) =>
        honest(path, start, path === `blobs/${layerDigest}` ? RandomImage.noise(2, layer.length) : bytes, response)
      ))
      assert.strictEqual(error._tag, "DigestMismatch")
    }))
})
