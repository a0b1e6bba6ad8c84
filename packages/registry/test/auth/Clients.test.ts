import { assert, describe, it } from "@effect/vitest"
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import { type Ingest, IngestState } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Reference from "@spegel-ts/oci/Reference"
import type { Credentials } from "@spegel-ts/registry/internal/auth/ClientCredentials"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router } from "@spegel-ts/router/Router"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { Effect, Layer, Option, Redacted, References, Result } from "effect"
import type { FileHandle } from "node:fs/promises"
import * as FileNode from "../FileNode.ts"
import { error, get, ns } from "../mirror/FalsePeer.ts"
import * as RawClient from "../RawClient.ts"
import { untilRecorded } from "../Recorded.ts"
import { startNode } from "../TestNode.ts"
import { auth, changing, counted, foreignRing, isProved, newLine, oldLine, ring, signed } from "./Keys.ts"

const layer = Buffer.from("a layer ".repeat(100))
const digest = Digest.ofBytes(layer)
/** More than the kernel holds between two sockets: who does not read stays an upload. */
const large = Buffer.alloc(48 * 1024 * 1024, "upload")
const largeTarget = `/v2/team/app/blobs/${Digest.ofBytes(large)}?ns=${ns}`
const target = `/v2/team/app/blobs/${digest}?ns=${ns}`
const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.imageIndex, manifests: [] }))
const reference = Result.getOrThrow(Reference.parse(`${ns}/team/app:v1`))
const absent = Digest.ofBytes(Buffer.from("absent"))

const basicAuth: Option.Option<Credentials> = Option.some({ username: "user", password: Redacted.make("secret") })
const basic = (text: string) => ({ authorization: `Basic ${Buffer.from(text).toString("base64")}` })
const tokenOf = (node: string, keys: KeyRing = ring): string => ClientToken.make(keys, node) ?? ""
const bearer = (node: string, keys?: KeyRing) => ({ authorization: `Bearer ${tokenOf(node, keys)}` })

/** The node "here", which holds a layer and a tag. */
const start = Effect.fnUntraced(function*(options: Parameters<typeof startNode>[2] = {}) {
  const node = yield* startNode(Router.memoryNetwork(), "127.0.26.2", {
    auth: auth("require"),
    nodeName: "here",
    ...options
  })
  yield* Effect.forEach([layer, manifest, large], node.content.put)
  yield* node.content.tag(reference, Digest.ofBytes(manifest))
  const ask = (path: string, headers: Record<string, string> = {}, method = "GET") =>
    get(node.url + path, { headers, method })
  return { ...node, ask }
})

/** Everything that could be asked for below /v2/, and errors of each kind. */
const requests: ReadonlyArray<readonly [method: string, path: string]> = [
  ...["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"].flatMap((method) => [
    [method, target] as const,
    [method, `/v2/team/app/manifests/v1?ns=${ns}`] as const,
    [method, `/v2/team/app/manifests/${digest}`] as const
  ]),
  ["GET", `/v2/team/app/blobs/${absent}?ns=${ns}`],
  ["GET", `/v2/team/app/manifests/other?ns=${ns}`],
  ["GET", `/v2/team/app/tags/list?ns=${ns}`],
  ["GET", "/v2/team/app/tags/list?n=x"],
  ["GET", `/v2/team/app/referrers/${digest}`],
  ["GET", "/v2/team/app/blobs/sha256:short"],
  ["GET", "/v2/team/app/manifests/-"],
  ["GET", "/v2/UPPER/manifests/v1"],
  ["GET", `/v2/team/app/manifests/v1?ns=${"x".repeat(9000)}`],
  ["POST", "/v2/team/app/blobs/uploads/"],
  ["POST", "/v2/"],
  ["GET", "/v2/_catalog"],
  ["GET", "/v2/team/app/unknown/v1"],
  ["GET", "/elsewhere"]
]

describe("a client that proves nothing", () => {
  for (
    const [name, options] of [
      ["tokens are asked for", {}],
      ["tokens or a password are asked for", { basicAuth }],
      ["a password is asked for in a migration", { auth: auth("prefer"), basicAuth }]
    ] as const
  ) {
    it.live(`gets a 404 with a reason and never a challenge, whatever it asks for, where ${name}`, () =>
      Effect.gen(function*() {
        const { ask, log } = yield* start(options)
        const stale = [
          {},
          bearer("here", foreignRing),
          { authorization: `Bearer ${tokenOf("here").replace("here", "there")}` },
          { authorization: `bearer ${tokenOf("here")}x` },
          { authorization: tokenOf("here") },
          // A pod's pull secret.
          basic("pod:pull-secret"),
          { authorization: "Basic" },
          { authorization: "Bearer" },
          { range: "bytes=0-1" },
          { range: "bytes=999999-" }
        ]
        for (const headers of stale) {
          for (const [method, path] of requests) {
            const answer = yield* ask(path, headers, method)
            const what = `${method} ${path.slice(0, 80)} ${JSON.stringify(headers)}`
            assert.strictEqual(answer.status, 404, what)
            for (const name of ["www-authenticate", "docker-content-digest", "x-spegel-auth", "x-spegel-time"]) {
              assert.isNull(answer.headers.get(name), what)
            }
            if (method === "HEAD") continue
            const { message } = error(answer.body)
            assert.include(message, "run spegel configuration on this node again", what)
            assert.include(message, "containerd continues with the upstream registry")
            for (const secret of ["pull-secret", tokenOf("here"), "secret"]) assert.notInclude(message, secret)
          }
        }
        assert.deepStrictEqual(yield* log.recent, [])
      }))
  }

  it.live("is challenged for /v2/ only, as people's tools ask", () =>
    Effect.gen(function*() {
      for (const options of [{}, { basicAuth }, { auth: Layer.empty, basicAuth }]) {
        const { ask } = yield* start(options)
        for (const path of ["/v2/", "/v2", `/v2/?ns=${ns}`]) {
          for (const method of ["GET", "HEAD"]) {
            for (const headers of [{}, basic("user:wrong"), bearer("here", foreignRing)]) {
              const answer = yield* ask(path, headers, method)
              assert.strictEqual(answer.status, 401)
              assert.match(answer.headers.get("www-authenticate") ?? "", /^Basic realm=/)
            }
          }
        }
        for (const probe of ["/livez", "/readyz"]) assert.strictEqual((yield* ask(probe)).status, 200)
      }
    }))

  it.live("gets no repetition of an answer to somebody who may pull", () =>
    Effect.gen(function*() {
      const { address, blobs: [blob], port } = yield* FileNode.start(Router.memoryNetwork(), "127.0.26.3", [1000], {
        nodeName: "here",
        auth: auth("require")
      })
      const ask = (headers: Record<string, string>) => get(`http://${address}:${port}${blob?.path}`, { headers })
      const before = yield* counted("spegel_client_auth_total", { client: "own", key: "current" })
      for (let round = 0; round < 3; round++) {
        assert.strictEqual((yield* ask(bearer("here"))).status, 200)
        for (const headers of [{}, bearer("here", foreignRing), basic("user:secret")]) {
          assert.strictEqual((yield* ask(headers)).status, 404)
        }
        assert.strictEqual((yield* ask({ "x-spegel-mirrored": "true" })).status, 404)
      }
      // Those that are repeated count as well.
      assert.strictEqual((yield* counted("spegel_client_auth_total", { client: "own", key: "current" })) - before, 3)
    }).pipe(Effect.provideService(References.TracerEnabled, false)))

  it.live("does not make peers get an answer of the past, without a proof", () =>
    Effect.gen(function*() {
      const { address, blobs: [blob], port, self } = yield* FileNode.start(
        Router.memoryNetwork(),
        "127.0.26.3",
        [1000],
        {
          auth: auth("prefer")
        }
      )
      const path = blob?.path ?? ""
      const ask = (headers: Record<string, string> = {}) => get(`http://${address}:${port}${path}`, { headers })
      const unproved = counted("spegel_client_auth_total", { client: "unproved_peer", key: "none" })
      const before = yield* unproved
      for (let round = 0; round < 3; round++) {
        assert.strictEqual((yield* ask()).status, 200)
        const { expected, headers } = signed({ receiver: self.id, target: path })
        assert.isTrue(isProved(expected, yield* ask(headers)))
        assert.isTrue(isProved(expected, yield* ask({ "x-spegel-auth": headers["x-spegel-auth"] })))
        assert.strictEqual((yield* ask({ "x-spegel-mirrored": "true" })).status, 200)
      }
      assert.strictEqual((yield* unproved) - before, 3)
    }).pipe(Effect.provideService(References.TracerEnabled, false)))

  it.live("gets what it asks for in a migration, and is counted", () =>
    Effect.gen(function*() {
      const { ask } = yield* start({ auth: auth("prefer") })
      const labels = { client: "unproved", key: "none" }
      const before = yield* counted("spegel_client_auth_total", labels)
      for (const headers of [{}, bearer("here", foreignRing), basic("pod:pull-secret")]) {
        assert.isTrue((yield* ask(target, headers)).body.equals(layer))
        assert.strictEqual((yield* ask("/v2/", headers)).status, 200)
      }
      assert.strictEqual((yield* counted("spegel_client_auth_total", labels)) - before, 6)
    }))

  it.live("is served without a word where nobody proves anything", () =>
    Effect.gen(function*() {
      const { ask } = yield* start({ auth: Layer.empty })
      for (const headers of [{}, bearer("here"), basic("pod:pull-secret"), { "x-spegel-mirrored": "true" }]) {
        assert.isTrue((yield* ask(target, headers)).body.equals(layer))
      }
      assert.strictEqual((yield* ask("/v2/")).status, 200)
      const withPassword = yield* start({ auth: Layer.empty, basicAuth })
      for (const headers of [{}, basic("user:wrong"), { "x-spegel-mirrored": "true" }, bearer("here")]) {
        const answer = yield* withPassword.ask(target, headers)
        assert.strictEqual(answer.status, 404)
        assert.isNull(answer.headers.get("www-authenticate"))
        assert.include(error(answer.body).message, "asks for a user name and a password")
      }
      assert.isTrue((yield* withPassword.ask(target, basic("user:secret"))).body.equals(layer))
    }))
})

describe("a client with a token or a password", () => {
  it.live("is served by any mirror of the cluster", () =>
    Effect.gen(function*() {
      const { ask } = yield* start({ basicAuth })
      for (
        const [headers, labels] of [
          [bearer("here"), { client: "own", key: "current" }],
          [bearer("there"), { client: "node", key: "current" }],
          [{ authorization: `bearer ${tokenOf("there")}` }, { client: "node", key: "current" }],
          // skopeo and crane send only what they were asked for: a user name and a password.
          [basic(`anybody:${tokenOf("here")}`), { client: "node", key: "current" }],
          [basic("user:secret"), { client: "basic", key: "none" }]
        ] as const
      ) {
        const before = yield* counted("spegel_client_auth_total", labels)
        assert.strictEqual((yield* ask("/v2/", headers)).status, 200)
        for (let again = 0; again < 2; again++) assert.isTrue((yield* ask(target, headers)).body.equals(layer))
        assert.strictEqual((yield* counted("spegel_client_auth_total", labels)) - before, 3, JSON.stringify(labels))
        // From this node's own content only, for whoever asks as a peer does.
        const asPeer = yield* ask(`/v2/team/app/blobs/${absent}?ns=${ns}`, { ...headers, "x-spegel-mirrored": "true" })
        assert.include(error(asPeer.body).message, "does not hold")
      }
      const refusals = counted("spegel_client_auth_refused_total", { credentials: "wrong" })
      const before = yield* refusals
      assert.strictEqual((yield* ask(target, basic("user:wrong"))).status, 404)
      assert.strictEqual((yield* refusals) - before, 1)
    }))

  it.live("is served with an old key, as one can see, until that key is dropped", () =>
    Effect.gen(function*() {
      const keys = changing("require", ringOf(oldLine))
      const { ask } = yield* start({ auth: keys.auth })
      const old = bearer("here", ringOf(oldLine))
      const seen = (key: string) => counted("spegel_client_auth_total", { client: "own", key })
      const before = [yield* seen("current"), yield* seen("old")] as const
      assert.strictEqual((yield* ask(target, old)).status, 200)
      keys.replace(ringOf(newLine, oldLine))
      assert.strictEqual((yield* ask(target, old)).status, 200)
      assert.deepStrictEqual([(yield* seen("current")) - before[0], (yield* seen("old")) - before[1]], [1, 1])
      keys.replace(ringOf(newLine))
      assert.strictEqual((yield* ask(target, old)).status, 404)
    }))
})

describe("this node's own containerd", () => {
  const reading = (node: { readonly address: string; readonly port: number }, headers: Record<string, string>) =>
    Effect.gen(function*() {
      const fields = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
      const client = yield* RawClient.open({ host: node.address, port: node.port }, largeTarget, fields)
      return yield* Effect.promise(() => client.head)
    })

  for (const mode of ["require", "prefer"] as const) {
    it.live(`is the only client whose bodies are not bounded (${mode})`, () =>
      Effect.gen(function*() {
        const node = yield* start({
          auth: auth(mode),
          basicAuth: mode === "require" ? basicAuth : Option.none(),
          maxUploadsPerPeer: 1
        })
        assert.strictEqual((yield* reading(node, bearer("there"))).status, 200)
        const others = mode === "require" ? [basic("user:secret"), basic(`x:${tokenOf("here")}`)] : [{}]
        for (const headers of [bearer("there"), ...others]) {
          const { status } = yield* reading(node, headers)
          // Only a 404 sends containerd to upstream.
          assert.strictEqual(status, 404)
        }
        for (let pull = 0; pull < 3; pull++) assert.strictEqual((yield* reading(node, bearer("here"))).status, 200)
      }))
  }

  it.live("is none that has no name", () =>
    Effect.gen(function*() {
      const node = yield* start({ nodeName: undefined, maxUploadsPerPeer: 1 })
      assert.deepStrictEqual(
        [(yield* reading(node, bearer("here"))).status, (yield* reading(node, bearer("here"))).status],
        [200, 404]
      )
    }))

  it.live("is the only client for which bodies of peers are relayed without a bound", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const holder = yield* startNode(network, "127.0.26.2", { auth: auth("require"), proved: true })
      yield* holder.router.advertise([ContentKey.make(yield* holder.content.put(large))])
      const node = yield* startNode(network, "127.0.26.3", {
        auth: auth("require"),
        nodeName: "here",
        maxUploadsPerPeer: 1
      })
      const statuses: Array<number> = []
      for (const name of ["there", "there", "here", "here"]) {
        statuses.push((yield* reading(node, bearer(name))).status)
      }
      assert.deepStrictEqual(statuses, [200, 404, 200, 200])
    }))

  it.live("is the only client whose downloads are watched, and whose new pull makes peers doubted", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const holder = yield* startNode(network, "127.0.26.2", { auth: auth("require"), proved: true })
      const blobDigest = yield* holder.content.put(large)
      yield* holder.router.advertise([ContentKey.make(blobDigest)])
      let state: IngestState = IngestState.InProgress({ written: 0, modified: 0 })
      let opened = 0
      const ingests: Array<Ingest> = [{
        namespace: "k8s.io",
        ref: "layer",
        digest: blobDigest,
        path: "/nowhere",
        size: large.length,
        written: 0
      }]
      const node = yield* startNode(network, "127.0.26.3", {
        auth: auth("require"),
        nodeName: "here",
        ingests,
        openIngest: () => {
          opened++
          return Effect.succeed({
            handle: { fd: -1 } as FileHandle,
            state: Effect.sync(() => state),
            // Its hash is never known.
            chunks: async function*() {
              yield await new Promise<Buffer>(() => {})
            }
          })
        }
      })
      const pull = (name: string) =>
        get(node.url + largeTarget, { headers: { ...bearer(name), "user-agent": "containerd/2.1.9" } })
      assert.strictEqual((yield* pull("there")).status, 200)
      assert.strictEqual(opened, 0)
      assert.strictEqual((yield* pull("here")).status, 200)
      assert.strictEqual(opened, 1)
      yield* untilRecorded(node.log, 2)
      // containerd has thrown the download away.
      ingests.length = 0
      state = IngestState.Deleted({ written: large.length })
      assert.strictEqual((yield* pull("there")).status, 200)
      assert.strictEqual((yield* pull("here")).status, 404)
    }))
})
