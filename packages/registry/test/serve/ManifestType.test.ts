import { assert, describe, it } from "@effect/vitest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Reference from "@spegel-ts/oci/Reference"
import { Router } from "@spegel-ts/router/Router"
import { Effect, Result } from "effect"
import * as FileNode from "../FileNode.ts"
import { error, get, ns } from "../mirror/FalsePeer.ts"
import { startNode } from "../TestNode.ts"

describe("a held blob that is not a manifest", () => {
  const asks = [
    { method: "GET" },
    { method: "HEAD" },
    { method: "GET", headers: { "x-spegel-mirrored": "true" } },
    { method: "HEAD", headers: { "x-spegel-mirrored": "true" } }
  ]

  it.live("is a blob and never a manifest, from the store and from memory", () =>
    Effect.gen(function*() {
      const { address, blobs: [blob], port } = yield* FileNode.start(Router.memoryNetwork(), "127.0.0.36", [1000])
      if (blob === undefined) return assert.fail("no blob")
      const url = (kind: string) => `http://${address}:${port}/v2/team/app/${kind}/${blob.digest}?ns=${ns}`
      for (const asked of ["anew", "from memory"]) {
        for (const ask of asks) {
          assert.strictEqual((yield* get(url("manifests"), ask)).status, 404, `${ask.method} ${asked}`)
        }
        const held = yield* get(url("blobs"))
        assert.strictEqual(held.status, 200)
        assert.strictEqual(held.headers.get("content-type"), MediaType.octetStream)
      }
    }))

  it.live("is not an answer to a tag either: upstream says what the tag is", () =>
    Effect.gen(function*() {
      const { content, url } = yield* startNode(Router.memoryNetwork(), "127.0.0.37")
      const digest = yield* content.put(Buffer.from("{\"mediaType\":\"a/b\",\"layers\":[]}"))
      yield* content.tag(Result.getOrThrow(Reference.parse(`${ns}/team/app:v1`)), digest)
      for (const reference of ["v1", digest]) {
        for (const ask of asks) {
          const { body, status } = yield* get(`${url}/v2/team/app/manifests/${reference}?ns=${ns}`, ask)
          assert.strictEqual(status, 404)
          if (ask.method === "GET") assert.strictEqual(error(body).code, "MANIFEST_UNKNOWN")
        }
      }
      const blob = yield* get(`${url}/v2/team/app/blobs/${digest}?ns=${ns}`)
      assert.strictEqual(blob.headers.get("content-type"), MediaType.octetStream)
    }))
})
