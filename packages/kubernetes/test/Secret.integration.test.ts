import { assert, describe, it } from "@effect/vitest"
import * as ApiClient from "@spegel-ts/kubernetes/ApiClient"
import * as ClusterAccess from "@spegel-ts/kubernetes/ClusterAccess"
import * as NodeLabel from "@spegel-ts/kubernetes/NodeLabel"
import * as Secret from "@spegel-ts/kubernetes/Secret"
import * as Kubeconfig from "@spegel-ts/testing/kubernetes/Kubeconfig"
import { Duration, Effect, Option } from "effect"
import { createServer } from "node:http"
import { text } from "node:stream/consumers"

interface Answer {
  readonly status: number
  readonly body: unknown
}

/** An API server that answers as it is told, and what it was asked. */
const start = Effect.fnUntraced(function*(answer: (method: string, path: string, body: string) => Answer) {
  const asked: Array<string> = []
  const server = createServer((request, response) => {
    const reply = async () => {
      const [method, path] = [request.method ?? "", request.url ?? ""]
      asked.push(`${method} ${path}`)
      const { body, status } = answer(method, path, await text(request))
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body))
    }
    void reply()
  })
  const kubeconfig = yield* Kubeconfig.serve(server)
  const access = { kubeconfig: Option.some(kubeconfig), environment: {} }
  return { access, asked, client: yield* ApiClient.make(yield* ClusterAccess.make(access)) }
})

const name = { namespace: "mirrors", name: "cluster-key" }
const failure = <A, E extends Error>(effect: Effect.Effect<A, E>) =>
  Effect.map(Effect.flip(effect), ({ message }) => message)

describe("Secret", () => {
  it.live("is created once, and read as the texts that it was created with", () =>
    Effect.gen(function*() {
      let stored: unknown
      const { asked, client } = yield* start((method, _path, body) => {
        if (method === "GET") return stored === undefined ? { status: 404, body: {} } : { status: 200, body: stored }
        if (method === "DELETE") {
          const status = stored === undefined ? 404 : 200
          stored = undefined
          return { status, body: {} }
        }
        if (stored !== undefined) return { status: 409, body: {} }
        stored = JSON.parse(body)
        return { status: 201, body: {} }
      })
      assert.deepStrictEqual(yield* Secret.read(client, name), Option.none())
      const secret = { ...name, labels: { a: "b" }, values: { key: "text\n" } }
      assert.isTrue(yield* Secret.create(client, secret))
      assert.isFalse(yield* Secret.create(client, { ...secret, values: { key: "other" } }))
      assert.deepStrictEqual(yield* Secret.read(client, name), Option.some({ key: "text\n" }))
      assert.deepStrictEqual(stored, {
        apiVersion: "v1",
        kind: "Secret",
        type: "Opaque",
        metadata: { ...name, labels: { a: "b" } },
        data: { key: Buffer.from("text\n").toString("base64") }
      })
      assert.isTrue(yield* Secret.remove(client, name))
      assert.isFalse(yield* Secret.remove(client, name))
      const path = "/api/v1/namespaces/mirrors/secrets"
      assert.deepStrictEqual([...new Set(asked)], [
        `GET ${path}/cluster-key`,
        `POST ${path}`,
        `DELETE ${path}/cluster-key`
      ])
    }))

  it.live("has no part of its values in errors, even where the server quotes them", () =>
    Effect.gen(function*() {
      const { client } = yield* start((_method, _path, body) => ({
        status: 403,
        body: { kind: "Status", message: `the webhook denied ${body} with hunter2` }
      }))
      const message = yield* failure(Secret.create(client, { ...name, labels: {}, values: { key: "hunter2\n" } }))
      assert.include(message, "the Secret mirrors/cluster-key: the API server answered 403 to POST: the webhook denied")
      assert.notInclude(message, "hunter2")
      assert.notInclude(message, Buffer.from("hunter2\n").toString("base64"))
    }))

  it.live("is not taken for something else", () =>
    Effect.gen(function*() {
      const { client } = yield* start(() => ({ status: 200, body: { data: { key: 7, other: "aHVudGVyMg==" } } }))
      const message = yield* failure(Secret.read(client, name))
      assert.strictEqual(message, "the Secret mirrors/cluster-key: the API server's answer is not a Secret")
    }))
})

describe("NodeLabel", () => {
  const read = (access: ClusterAccess.AccessOptions) =>
    NodeLabel.read({
      ...access,
      node: "node-1",
      label: "topology.kubernetes.io/zone",
      deadline: Duration.seconds(10)
    })

  it.live("is the node's, or none", () =>
    Effect.gen(function*() {
      const labels = { "topology.kubernetes.io/zone": "zone-a" }
      for (
        const [metadata, expected] of [
          [{ labels }, Option.some("zone-a")],
          [{ labels: {} }, Option.none()],
          [{}, Option.none()]
        ] as const
      ) {
        const { access, asked } = yield* start(() => ({ status: 200, body: { metadata } }))
        assert.deepStrictEqual(yield* read(access), expected)
        assert.deepStrictEqual(asked, ["GET /api/v1/nodes/node-1"])
      }
    }))

  it.live("says why it cannot be read", () =>
    Effect.gen(function*() {
      const { access } = yield* start(() => ({ status: 403, body: { message: "no" } }))
      assert.match(
        yield* failure(read(access)),
        /^the labels of node node-1 cannot be read: the API server answered 403/
      )
      const other = yield* start(() => ({ status: 200, body: [] }))
      assert.include(yield* failure(read(other.access)), "the answer is not a Node")
    }))
})
