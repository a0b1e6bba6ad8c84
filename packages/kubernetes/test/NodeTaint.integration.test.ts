import { assert, describe, it } from "@effect/vitest"
import * as Background from "@spegel-ts/background/Background"
import { removeWhenReady } from "@spegel-ts/kubernetes/NodeTaint"
import * as Kubeconfig from "@spegel-ts/testing/kubernetes/Kubeconfig"
import { Effect, Fiber, Option, Schedule } from "effect"
import { createServer } from "node:http"
import { text } from "node:stream/consumers"

interface Taint {
  readonly key: string
  readonly effect: string
  readonly [field: string]: unknown
}

/** One node of a Kubernetes API: reads, and merge patches with optimistic concurrency. `refuse` answers in its place. */
const startApi = Effect.fnUntraced(function*(taints: ReadonlyArray<Taint>) {
  const state = { taints, version: 1, requests: [] as Array<string>, refuse: (_method: string): number => 0 }
  const server = createServer((request, response) => {
    const answer = async () => {
      const method = request.method ?? ""
      state.requests.push(`${method} ${request.url}`)
      const refused = state.refuse(method)
      const patch = method === "PATCH" ? JSON.parse(await text(request)) : undefined
      const typed = patch === undefined || request.headers["content-type"] === "application/merge-patch+json"
      const status = refused !== 0
        ? refused
        : !typed
        ? 415
        : patch !== undefined && patch.metadata.resourceVersion !== String(state.version)
        ? 409
        : 200
      if (status === 200 && patch !== undefined) {
        state.taints = patch.spec.taints
        state.version++
      }
      const spec = state.taints.length === 0 ? {} : { taints: state.taints }
      response.writeHead(status, { "content-type": "application/json" }).end(
        JSON.stringify({ kind: "Node", metadata: { name: "node-1", resourceVersion: String(state.version) }, spec })
      )
    }
    void answer()
  })
  const kubeconfig = yield* Kubeconfig.serve(server)
  const options = {
    node: "node-1",
    taint: "spegel.dev/not-ready",
    kubeconfig: Option.some(kubeconfig),
    environment: {}
  }
  return { state, options: { ...options, ready: Effect.succeed(true) } }
})

const ours: Taint = { key: "spegel.dev/not-ready", effect: "NoSchedule" }
const other: Taint = {
  key: "node.kubernetes.io/unschedulable",
  effect: "NoSchedule",
  timeAdded: "2026-01-01T00:00:00Z"
}

describe("the node's taint", () => {
  it.live("is taken off once the mirror is ready, and others stay as they are", () =>
    Effect.gen(function*() {
      const { options, state } = yield* startApi([ours, other, { ...ours, effect: "NoExecute" }])
      let ready = false
      const removing = yield* Effect.forkScoped(removeWhenReady({ ...options, ready: Effect.sync(() => ready) }))
      yield* Effect.sleep("500 millis")
      assert.deepStrictEqual(state.requests, [])
      ready = true
      yield* Fiber.join(removing)
      assert.deepStrictEqual(state.taints, [other])
      assert.deepStrictEqual(state.requests, ["GET /api/v1/nodes/node-1", "PATCH /api/v1/nodes/node-1"])
    }))

  it.live("is not asked for again where it is not there", () =>
    Effect.gen(function*() {
      for (const taints of [[], [other]]) {
        const { options, state } = yield* startApi(taints)
        yield* removeWhenReady(options)
        assert.deepStrictEqual(state.requests, ["GET /api/v1/nodes/node-1"])
      }
    }))

  it.live(
    "is tried again after an outage, a refusal and a change by another, which is not lost",
    () =>
      Effect.gen(function*() {
        const { options, state } = yield* startApi([ours])
        const refusals = [500, 403, 0]
        state.refuse = (method) => {
          // The node is changed between our reading it and our patch.
          if (method === "PATCH" && state.version === 1) {
            state.version = 2
            state.taints = [ours, other]
          }
          return refusals.shift() ?? 0
        }
        yield* Background.untilDone("node taint", removeWhenReady(options))
        yield* Effect.sync(() => state.taints[0]?.key).pipe(
          Effect.repeat({ schedule: Schedule.spaced("20 millis"), until: (key) => key === other.key })
        )
        assert.deepStrictEqual(state.taints, [other])
        const methods = state.requests.map((request) => request.split(" ")[0])
        assert.strictEqual(methods.join(" "), "GET GET GET PATCH GET PATCH")
      }),
    60_000
  )
})
