import { assert, describe, it } from "@effect/vitest"
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { Router } from "@spegel-ts/router/Router"
import * as Prerequisite from "@spegel-ts/testing/kubernetes/Prerequisite"
import { Effect, Option, Redacted } from "effect"
import { execFile } from "node:child_process"
import { startNode } from "../TestNode.ts"
import { auth, foreignRing, ring } from "./Keys.ts"

const config = Buffer.from(
  JSON.stringify({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [] } })
)
const manifest = Buffer.from(JSON.stringify({
  schemaVersion: 2,
  mediaType: MediaType.imageManifest,
  config: { mediaType: MediaType.imageConfig, digest: Digest.ofBytes(config), size: config.length },
  layers: []
}))

const lacking = Prerequisite.lacking(
  process.env,
  Prerequisite.inPath("skopeo", process.env) ? undefined : "needs skopeo"
)

/** What skopeo prints of an image, or its error. */
const inspect = (image: string, ...args: ReadonlyArray<string>) =>
  Effect.callback<{ readonly found: boolean; readonly said: string }>((resume) => {
    execFile(
      "skopeo",
      ["inspect", "--tls-verify=false", ...args, `docker://${image}`],
      (error, stdout, stderr) => resume(Effect.succeed({ found: error === null, said: `${stdout}${stderr}` }))
    )
  })

describe("people's tools", () => {
  it.live(`log in with the mirror's password, or with a node's token${lacking === undefined ? "" : ` (skipped: ${lacking})`}`, () =>
    Effect.gen(function*() {
      if (lacking !== undefined) return
      const node = yield* startNode(Router.memoryNetwork(), "127.0.28.2", {
        auth: auth("require"),
        nodeName: "here",
        basicAuth: Option.some({ username: "user", password: Redacted.make("secret") })
      })
      yield* Effect.forEach([config, manifest], node.content.put)
      const digest = Digest.ofBytes(manifest)
      yield* node.content.tag({ registry: "registry.example", repository: "team/app", tag: "v1" }, digest)
      const image = `${node.address}:${node.port}/registry.example/team/app:v1`
      for (const credentials of ["user:secret", `anybody:${ClientToken.make(ring, "here")}`]) {
        const { found, said } = yield* inspect(image, "--creds", credentials)
        assert.isTrue(found, said)
        assert.include(said, digest)
      }
      for (const wrong of [[], ["--creds", "user:wrong"], ["--creds", `x:${ClientToken.make(foreignRing, "here")}`]]) {
        const { found, said } = yield* inspect(image, ...wrong)
        assert.isFalse(found)
        assert.include(said, "a tool logs in with a node's token as its password")
      }
    }))
})
