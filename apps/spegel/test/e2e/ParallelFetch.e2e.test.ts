import { assert, describe, it } from "@effect/vitest"
import { parallelFetch } from "@spegel-ts/faults/Plan"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { Effect, Fiber } from "effect"

const missing = ContainerdDaemon.missingPrerequisite("docker-registry")
const layerSize = 256 * 1024 * 1024

/** Two nodes that have an image, and one that fetches its layer in parts, side by side. */
const cluster = Effect.gen(function*() {
  const programs = yield* ContainerdPackages.fetch("2.1")
  const upstream = yield* Upstream.start
  const ports = yield* MirrorPorts.free
  const first = yield* Node.start(1, ports, upstream.host)
  const second = yield* Node.start(2, ports, upstream.host)
  const node = yield* Node.start(3, ports, upstream.host, { programs, settings: parallelFetch })
  const image = yield* upstream.push({ tag: "v1", layers: 1, layerSize })
  yield* first.pull(image.name)
  yield* second.pull(image.name)
  yield* Lookup.untilFound(node.url, upstream.repository, Lookup.pathsOf(image))
  upstream.state.blobBytes = 0
  upstream.state.requests.length = 0
  return { upstream, first, second, node, image }
})

const die = (node: Node.Node) => {
  node.mirror.child.kill("SIGKILL")
  return node.mirror.finished
}

describe.skipIf(missing !== undefined)(
  `a layer fetched in parts${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    it.live("comes from peers alone where one of two dies in the middle", () =>
      Effect.gen(function*() {
        const { first, image, node, upstream } = yield* cluster
        const pulling = yield* Effect.forkScoped(node.pullByCri(image.name))
        yield* Node.untilPulling(node)
        yield* die(first)
        assert.isUndefined(pulling.pollUnsafe(), "it was over before the peer died")
        yield* Fiber.join(pulling)
        assert.strictEqual(upstream.state.blobBytes, 0)
      }), 120_000)

    it.live("comes from upstream for the rest where all peers die in the middle", () =>
      Effect.gen(function*() {
        const { first, image, node, second, upstream } = yield* cluster
        const pulling = yield* Effect.forkScoped(node.pullByCri(image.name))
        yield* Node.untilPulling(node)
        yield* Effect.all([die(first), die(second)], { concurrency: "unbounded" })
        assert.isUndefined(pulling.pollUnsafe(), "it was over before the peers died")
        yield* Fiber.join(pulling)
        // Its ranges have no end: it leaves when it has its part, so bytes on the way do not tell what it took.
        const offsets = upstream.state.requests.map((request) => Number(/ bytes=(\d+)-$/.exec(request)?.[1] ?? 0))
        assert.isNotEmpty(offsets)
        assert.notInclude(offsets, 0)
      }), 120_000)
  }
)
