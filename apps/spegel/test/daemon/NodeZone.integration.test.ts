import { assert, describe, it } from "@effect/vitest"
import * as NodeZone from "@spegel-ts/spegel/daemon/NodeZone"
import * as Kubeconfig from "@spegel-ts/testing/kubernetes/Kubeconfig"
import { Effect, Option } from "effect"
import { createServer, type ServerResponse } from "node:http"

/** Settings of a mirror that may read its node, of which an API server says what it is told. */
const start = Effect.fnUntraced(function*(answer: (response: ServerResponse) => void) {
  const asked: Array<string> = []
  const server = createServer((request, response) => {
    asked.push(request.url ?? "")
    answer(response)
  })
  const kubeconfig = yield* Kubeconfig.serve(server)
  const settings = {
    kubeconfigPath: Option.some(kubeconfig),
    nodeName: "node-1",
    nodeReadinessTaint: "spegel.dev/not-ready",
    zone: ""
  }
  return { asked, settings }
})

const labels = { "topology.kubernetes.io/zone": "zone-a" }

describe("NodeZone", () => {
  it.live("is the label of the node, unless the settings name another, or the mirror may not read its node", () =>
    Effect.gen(function*() {
      const { asked, settings } = yield* start((response) => response.end(JSON.stringify({ metadata: { labels } })))
      assert.strictEqual(yield* NodeZone.find({ ...settings, zone: "zone-b" }), "zone-b")
      assert.isUndefined(yield* NodeZone.find({ ...settings, nodeReadinessTaint: "" }))
      assert.deepStrictEqual(asked, [])
      assert.strictEqual(yield* NodeZone.find(settings), "zone-a")
      assert.deepStrictEqual(asked, ["/api/v1/nodes/node-1"])
    }))

  it.live("is not known where the API does not say, and is not waited for", () =>
    Effect.gen(function*() {
      const refusals: ReadonlyArray<(response: ServerResponse) => void> = [
        (response) => response.writeHead(403).end("{}"),
        (response) => response.end(JSON.stringify({ metadata: { labels: {} } })),
        (response) => response.destroy(),
        () => {}
      ]
      for (const refusal of refusals) {
        const { settings } = yield* start(refusal)
        const began = performance.now()
        assert.isUndefined(yield* NodeZone.find(settings))
        assert.isBelow(performance.now() - began, 5000)
      }
    }))
})
