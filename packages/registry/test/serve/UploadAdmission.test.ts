import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MemoryRouter from "@spegel-ts/router/MemoryRouter"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Effect, Metric } from "effect"
import * as RawClient from "../RawClient.ts"
import { startNode } from "../TestNode.ts"

/** More than the kernel holds between two sockets: who does not read stays an upload. */
const blob = Buffer.alloc(48 * 1024 * 1024, "upload")
const digest = Digest.ofBytes(blob)
const path = `/v2/team/app/blobs/${digest}?ns=registry.example`
const asPeer = ["x-spegel-mirrored: true"]

const inflight = Effect.map(
  Metric.snapshot,
  (metrics) => {
    const metric = metrics.find(({ id }) => id === "spegel_uploads_inflight")
    return metric?.type === "Gauge" ? Number(metric.state.value) : undefined
  }
)

describe("UploadAdmission", () => {
  const start = (limits: { readonly maxUploads: number; readonly maxUploadsPerPeer: number }) =>
    Effect.gen(function*() {
      const node = yield* startNode(MemoryRouter.network(), "127.0.0.2", limits)
      yield* node.content.put(blob)
      const ask = (localAddress: string, fields: ReadonlyArray<string> = asPeer) =>
        RawClient.open({ host: node.address, port: node.port, localAddress }, path, fields)
      const status = (client: RawClient.RawClient) => Effect.promise(() => client.head.then(({ status }) => status))
      return { ask, status, url: `${node.url}${path}` }
    })

  it.live("answers 503 with Retry-After at once beyond the bound for all, and again 200 when one is done", () =>
    Effect.gen(function*() {
      const { ask, status } = yield* start({ maxUploads: 2, maxUploadsPerPeer: 0 })
      const [first, second] = [yield* ask("127.0.0.11"), yield* ask("127.0.0.12")]
      assert.deepStrictEqual([yield* status(first), yield* status(second)], [200, 200])
      assert.strictEqual(yield* inflight, 2)

      const third = yield* ask("127.0.0.13")
      const refusal = yield* Effect.promise(() => third.head)
      assert.strictEqual(refusal.status, 503)
      assert.include(refusal.head, "retry-after: 1")
      assert.include(String(yield* Effect.promise(() => third.body())), "2 bodies to peers")

      assert.strictEqual((yield* Effect.promise(() => first.body())).length, blob.length)
      yield* eventually(Effect.map(inflight, (uploads) => uploads === 1))
      assert.strictEqual(yield* status(yield* ask("127.0.0.13")), 200)
    }))

  it.live("bounds one peer without the others noticing; a peer that goes away makes room", () =>
    Effect.gen(function*() {
      const { ask, status } = yield* start({ maxUploads: 10, maxUploadsPerPeer: 1 })
      const first = yield* ask("127.0.0.11")
      assert.strictEqual(yield* status(first), 200)
      assert.strictEqual(yield* status(yield* ask("127.0.0.11")), 503)
      assert.strictEqual(yield* status(yield* ask("127.0.0.12")), 200)
      const before = (yield* inflight) ?? 0
      first.socket.destroy()
      yield* eventually(Effect.map(inflight, (uploads) => uploads === before - 1))
      assert.strictEqual(yield* status(yield* ask("127.0.0.11")), 200)
    }))

  it.live("does not count this node's own containerd, nor HEAD", () =>
    Effect.gen(function*() {
      const { ask, status, url } = yield* start({ maxUploads: 1, maxUploadsPerPeer: 1 })
      for (let client = 0; client < 3; client++) assert.strictEqual(yield* status(yield* ask("127.0.0.11", [])), 200)
      assert.strictEqual(yield* status(yield* ask("127.0.0.11")), 200)
      const head = yield* Effect.promise(() => fetch(url, { method: "HEAD", headers: { "x-spegel-mirrored": "true" } }))
      assert.strictEqual(head.status, 200)
      assert.strictEqual(yield* status(yield* ask("127.0.0.12")), 503)
    }))
})
