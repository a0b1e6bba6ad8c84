/** Somebody without credentials wants to read private images, or to learn which there are. */
import { assert, describe, it } from "@effect/vitest"
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import * as Digest from "@spegel-ts/oci/Digest"
import * as RequestProof from "@spegel-ts/registry/internal/auth/RequestProof"
import { newRing } from "@spegel-ts/testing/ClusterKeys"
import { testImage } from "@spegel-ts/testing/content/TestImage"
import { Effect } from "effect"
import * as AttackedCluster from "./AttackedCluster.ts"
import { note } from "./Findings.ts"

const held = testImage("private")
const unknown = testImage("never pulled")
const registry = "registry.example"
const repository = "team/secret-app"
const reference = `${registry}/${repository}:v1`

/** The paths of everything that the registry API has of an image, with its registry and without. */
const pathsOf = (image: AttackedCluster.TestImage, repository: string): ReadonlyArray<string> => {
  const of = (bytes: Uint8Array) => Digest.ofBytes(bytes)
  const paths = [
    `${repository}/manifests/v1`,
    `${repository}/manifests/${image.descriptor.digest}`,
    `${repository}/blobs/${of(image.config)}`,
    `${repository}/blobs/${of(image.layer)}`,
    `${repository}/tags/list`,
    `${repository}/referrers/${image.descriptor.digest}`,
    "_catalog"
  ]
  return ["", `?ns=${registry}`].flatMap((ns) => paths.map((path) => `/v2/${path}${ns}`))
}

const methods = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"]

/** Headers of strangers: none, those of another cluster's nodes and peers, of wrong forms, and a password. */
const strangers = (receiver: string): ReadonlyArray<Readonly<Record<string, string>>> => {
  const foreign = newRing()
  const request = {
    receiver,
    method: "GET",
    target: `/v2/${repository}/manifests/v1`,
    range: undefined,
    said: []
  }
  const nonce = RequestProof.newNonce()
  return [
    {},
    { authorization: `Bearer ${ClientToken.make(foreign, "node-2")}` },
    { authorization: `Basic ${Buffer.from("admin:admin").toString("base64")}` },
    { "x-spegel-auth": RequestProof.print(foreign.current("registry"), request, Date.now(), nonce) },
    { "x-spegel-auth": "v1" }
  ].flatMap((headers) => [headers, { ...headers, "x-spegel-mirrored": "true" }])
}

interface Told {
  readonly status: number
  readonly challenge: string | null
  readonly fields: string
  readonly body: string
}

const told = Effect.fnUntraced(function*(url: string, method: string, headers: Readonly<Record<string, string>>) {
  const { body, headers: fields, status } = yield* AttackedCluster.ask(url, { method, headers })
  return {
    status,
    challenge: fields.get("www-authenticate"),
    fields: [...fields.keys()].toSorted().join(),
    body: body.toString()
  } satisfies Told
})

describe("somebody without credentials", { timeout: 120_000 }, () => {
  it.live("reads nothing, and does not learn what is held", () =>
    Effect.gen(function*() {
      const cluster = yield* AttackedCluster.make({ network: "127.81.6", peerAuth: "require" })
      const holder = yield* cluster.start(2, { images: { [reference]: held } })
      const other = yield* cluster.start(3)
      yield* AttackedCluster.untilTogether([holder, other])
      // Whoever may can read it, from both.
      for (const node of [holder, other]) {
        const path = AttackedCluster.manifestPath(repository, "v1", registry)
        assert.strictEqual((yield* node.pull(path)).body.toString(), held.manifest.toString())
      }
      let requests = 0
      const askBoth = Effect.fnUntraced(
        function*(node: AttackedCluster.AttackedNode, index: number, headers: Readonly<Record<string, string>>) {
          const paths = [pathsOf(held, repository), pathsOf(unknown, "team/never-pulled")]
          const isPlain = headers["authorization"] === undefined && headers["x-spegel-auth"] === undefined
          for (const method of isPlain ? methods : ["GET", "HEAD"]) {
            const [ofHeld, ofUnknown] = yield* Effect.forEach(
              paths,
              (of) => told(`${node.url}${of[index]}`, method, headers)
            )
            requests += 2
            assert.strictEqual(ofHeld?.status, 404, `${method} ${paths[0]?.[index]} ${JSON.stringify(headers)}`)
            assert.isNull(ofHeld?.challenge)
            assert.deepStrictEqual(ofHeld, ofUnknown)
            assert.notInclude(ofHeld?.body, "sha256:")
          }
        }
      )
      for (const node of [holder, other]) {
        const asked = pathsOf(held, repository).flatMap((_, index) =>
          strangers(node.id).map((headers) => ({ index, headers }))
        )
        yield* Effect.forEach(asked, ({ headers, index }) => askBoth(node, index, headers), {
          concurrency: 4,
          discard: true
        })
      }
      assert.isAbove(yield* holder.metric("spegel_client_auth_refused_total"), 0)
      assert.isAbove(yield* holder.metric("spegel_peer_auth_failures_total"), 0)
      yield* note(
        `${requests} requests for images, manifests, tags and catalogues`,
        "has no key",
        "404 to all, without a challenge"
      )
    }))

  it.live("reads everything where nobody proves anything", () =>
    Effect.gen(function*() {
      const cluster = yield* AttackedCluster.make({ network: "127.81.7", peerAuth: "off" })
      const holder = yield* cluster.start(2, { images: { [reference]: held } })
      const statuses = yield* Effect.forEach(
        pathsOf(held, repository),
        (path) => Effect.map(AttackedCluster.ask(`${holder.url}${path}`), ({ status }) => status)
      )
      const read = statuses.filter((status) => status === 200).length
      // All but the referrers and the catalogue, which no mirror has.
      assert.strictEqual(read, statuses.length - 4)
      yield* note("requests for images", "off", `${read} of ${statuses.length} paths readable`)
    }))
})
