import { assert, describe, it } from "@effect/vitest"
import * as Manifest from "@spegel-ts/oci/Manifest"
import * as Canary from "@spegel-ts/registry/Canary"
import { Router } from "@spegel-ts/router/Router"
import { Effect, Result } from "effect"
import { startNode } from "../TestNode.ts"

const start = startNode(Router.memoryNetwork(), "127.0.0.1", {
  filter: ({ registry }) => registry === "registry.example"
})

const get = (url: string, path: string, headers: Record<string, string> = {}) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/v2/${path}`, { headers })
    return { status: response.status, type: response.headers.get("content-type"), body: await response.text() }
  })

const image = Canary.make() ?? assert.fail("there is no canary for this machine")
const manifestPath = `${image.repository}/manifests/${image.digest}`

describe("Canary", () => {
  it.live("is served whole to this node's own containerd, whatever the repository's random name", () =>
    Effect.gen(function*() {
      const { url } = yield* start
      const { body, status, type } = yield* get(url, `${manifestPath}?ns=registry.example`)
      assert.deepStrictEqual([status, type], [200, "application/vnd.oci.image.manifest.v1+json"])
      const manifest = Result.getOrThrow(Manifest.parse(Buffer.from(body)))
      assert.isTrue(manifest._tag === "Image")
      if (manifest._tag !== "Image") return
      for (const { digest, size } of [manifest.config, ...manifest.layers]) {
        const blob = yield* get(url, `${image.repository}/blobs/${digest}?ns=registry.example`)
        assert.deepStrictEqual([blob.status, blob.body.length], [200, size])
        assert.isTrue(Canary.isCanary(digest))
      }
      const other = Canary.make()?.repository
      assert.notStrictEqual(other, image.repository)
      assert.strictEqual((yield* get(url, `${other}/manifests/${image.digest}?ns=registry.example`)).status, 200)
    }))

  it.live("is not served to peers, for registries that are not mirrored, or under another name", () =>
    Effect.gen(function*() {
      const { url } = yield* start
      const refused = [
        yield* get(url, `${manifestPath}?ns=registry.example`, { "x-spegel-mirrored": "true" }),
        yield* get(url, `${manifestPath}?ns=other.example`),
        yield* get(url, `team/app/manifests/${image.digest}?ns=registry.example`),
        yield* get(url, `${image.repository}/manifests/latest?ns=registry.example`)
      ]
      assert.deepStrictEqual(refused.map(({ status }) => status), [404, 404, 404, 404])
      assert.include(refused[0]?.body, "a canary is served to the mirror's own node")
      assert.include(refused[1]?.body, "left to the upstream registry")
    }))
})
