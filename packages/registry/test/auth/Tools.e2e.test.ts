import { assert, describe, it } from "@effect/vitest"
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { Router } from "@spegel-ts/router/Router"
import * as Prerequisite from "@spegel-ts/testing/kubernetes/Prerequisite"
import * as TemporaryDirectory from "@spegel-ts/testing/TemporaryDirectory"
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

/** What a program prints, and whether it succeeded. */
const run = (program: string, args: ReadonlyArray<string>, input = "", env: NodeJS.ProcessEnv = process.env) =>
  Effect.callback<{ readonly found: boolean; readonly said: string }>((resume) => {
    const child = execFile(
      program,
      args,
      { env },
      (error, stdout, stderr) => resume(Effect.succeed({ found: error === null, said: `${stdout}${stderr}` }))
    )
    child.stdin?.end(input)
  })

/** What skopeo prints of an image, or its error. */
const inspect = (image: string, ...args: ReadonlyArray<string>) =>
  run("skopeo", ["inspect", "--tls-verify=false", ...args, `docker://${image}`])

/** Starts a mirror that has an image, and gives the image's name there. */
const start = Effect.gen(function*() {
  const node = yield* startNode(Router.memoryNetwork(), "127.0.28.2", {
    auth: auth("require"),
    nodeName: "here",
    basicAuth: Option.some({ username: "user", password: Redacted.make("secret") })
  })
  yield* Effect.forEach([config, manifest], node.content.put)
  const digest = Digest.ofBytes(manifest)
  yield* node.content.tag({ registry: "registry.example", repository: "team/app", tag: "v1" }, digest)
  const host = `${node.address}:${node.port}`
  return { digest, host, image: `${host}/registry.example/team/app:v1` }
})

/** User names and passwords. */
const right = [["user", "secret"], ["anybody", ClientToken.make(ring, "here") ?? ""]] as const
const wrong = [["user", "wrong"], ["x", ClientToken.make(foreignRing, "here") ?? ""]] as const

describe("people's tools", () => {
  it.live(`log in with the mirror's password, or with a node's token${lacking === undefined ? "" : ` (skipped: ${lacking})`}`, () =>
    Effect.gen(function*() {
      if (lacking !== undefined) return
      const { digest, image } = yield* start
      for (const pair of right) {
        const { found, said } = yield* inspect(image, "--creds", pair.join(":"))
        assert.isTrue(found, said)
        assert.include(said, digest)
      }
      for (const given of [[], ...wrong.map((pair) => ["--creds", pair.join(":")])]) {
        const { found, said } = yield* inspect(image, ...given)
        assert.isFalse(found)
        assert.include(said, "a tool logs in with a node's token as its password")
      }
    }))

  // Debian has no package of it: `go install github.com/google/go-containerregistry/cmd/crane@v0.22.1`.
  const noCrane = Prerequisite.inPath("crane", process.env) ? undefined : "needs crane"
  it.live(`do so with standard input, as crane does${noCrane === undefined ? "" : ` (skipped: ${noCrane})`}`, () =>
    Effect.gen(function*() {
      if (noCrane !== undefined) return
      const { digest, host, image } = yield* start
      const directory = yield* TemporaryDirectory.temporary
      const crane = (args: ReadonlyArray<string>, input = "") =>
        run("crane", args, input, { ...process.env, DOCKER_CONFIG: directory })
      const login = ([username, password]: readonly [string, string]) =>
        crane(["auth", "login", host, "--username", username, "--password-stdin"], password)
      const ask = crane(["digest", "--insecure", image])
      for (const pair of right) {
        yield* login(pair)
        assert.deepStrictEqual(yield* ask, { found: true, said: `${digest}\n` })
      }
      yield* crane(["auth", "logout", host])
      for (const logIn of [Effect.void, ...wrong.map(login)]) {
        yield* logIn
        const { found, said } = yield* ask
        assert.isFalse(found)
        assert.include(said, "a tool logs in with a node's token as its password")
      }
    }))
})
