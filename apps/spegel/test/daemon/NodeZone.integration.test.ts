import { assert, describe, it } from "@effect/vitest"
import * as NodeZone from "@spegel-ts/spegel/daemon/NodeZone"
import * as LocalServer from "@spegel-ts/testing/network/LocalServer"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Option } from "effect"
import { writeFile } from "node:fs/promises"
import { createServer, type ServerResponse } from "node:http"
import { join } from "node:path"

/** Settings of a mirror that may read its node, of which an API server says what it is told. */
const start = Effect.fnUntraced(function*(answer: (response: ServerResponse) => void) {
  const asked: Array<string> = []
  const server = createServer((request, response) => {
    asked.push(request.url ?? "")
    answer(response)
  })
  const kubeconfig = join(yield* temporary, "kubeconfig")
  const config = {
    "current-context": "test",
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    clusters: [{ name: "test", cluster: { server: `http://127.0.0.1:${yield* LocalServer.listen(server)}` } }],
    users: [{ name: "test", user: {} }]
  }
  yield* Effect.promise(() => writeFile(kubeconfig, JSON.stringify(config)))
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
