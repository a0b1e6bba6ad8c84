/** Nodes with real containerd daemons, one of each version, pull a new image at once: the registry sends it to one of them. */
import { assert, describe, it } from "@effect/vitest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import { eventually } from "@spegel-ts/testing/Eventually"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { Effect, Fiber } from "effect"
import * as ClusterKeys from "./trust/ClusterKeys.ts"
import * as Metrics from "./trust/Metrics.ts"

const missing = ContainerdDaemon.missingPrerequisite("docker-registry")
const mebibyte = 1024 * 1024

/** One node of each version. They have met. */
const startNodes = Effect.fnUntraced(function*(flags: ReadonlyArray<string> = []) {
  const upstream = yield* Upstream.start
  const ports = yield* MirrorPorts.free
  const key = yield* ClusterKeys.make
  const nodes = yield* Effect.forEach(ContainerdPackages.versions, (version, index) =>
    Effect.gen(function*() {
      const trust = [key.flag, `--node-name=node-${index + 1}`]
      return yield* Node.start(index + 1, ports, upstream.host, {
        programs: yield* ContainerdPackages.fetch(version),
        registry: [...trust, ...flags],
        configuration: trust
      })
    }))
  for (const node of nodes) {
    const members = Metrics.sum(node, "spegel_peer_auth_members", `proved="true"`)
    yield* eventually(Effect.map(members, (count) => count === nodes.length - 1))
  }
  return { upstream, nodes }
})

const pullAtOnce = (nodes: ReadonlyArray<Node.Node>, image: string) =>
  Effect.forEach(nodes, (node) => node.pull(image), { concurrency: "unbounded" })

const layersOf = (image: Upstream.Image) =>
  image.objects.filter(({ kind }) => kind !== "manifest").reduce((sum, { descriptor }) => sum + descriptor.size, 0)

describe.skipIf(missing !== undefined)(`a new image${missing === undefined ? "" : ` (skipped: ${missing})`}`, () => {
  it.live("comes from upstream once, whether the registry is fast or slow", () =>
    Effect.gen(function*() {
      const { nodes, upstream } = yield* startNodes()
      for (const [tag, speed] of [["slow", 8 * mebibyte], ["fast", Infinity]] as const) {
        const image = yield* upstream.push({
          tag,
          layers: 2,
          layerSize: 24 * mebibyte,
          seed: speed === Infinity ? 1 : 2
        })
        upstream.state.speed = speed
        upstream.state.blobBytes = 0
        upstream.state.requests.length = 0
        yield* pullAtOnce(nodes, image.name)
        // A machine that stands still for a second may cost one layer more; `npm run bench -- herd` has the exact figures.
        assert.isAtMost(upstream.state.blobBytes, 1.55 * layersOf(image), upstream.state.requests.join("\n"))
        for (const node of nodes) {
          const content = yield* node.containerd.ctr("content", "ls")
          for (const { descriptor } of image.objects) assert.include(content, descriptor.digest)
        }
      }
      const shared = yield* Effect.forEach(nodes, (node) => Metrics.sum(node, "spegel_downloads_shared_bytes_total"))
      assert.isAbove(shared.reduce((sum, bytes) => sum + bytes, 0), 24 * mebibyte)
    }), 240_000)

  it.live("comes from upstream for each node where sharing is off, as a control", () =>
    Effect.gen(function*() {
      const { nodes, upstream } = yield* startNodes(["--in-progress=off"])
      const image = yield* upstream.push({ tag: "off", layers: 1, layerSize: 24 * mebibyte })
      upstream.state.speed = 8 * mebibyte
      yield* pullAtOnce(nodes, image.name)
      assert.isAtLeast(upstream.state.blobBytes, 1.9 * layersOf(image))
    }), 120_000)

  it.live("is pulled by all nodes though the mirror of the one that downloads it dies", () =>
    Effect.gen(function*() {
      const { nodes, upstream } = yield* startNodes()
      const image = yield* upstream.push({ tag: "dies", layers: 1, layerSize: 64 * mebibyte })
      upstream.state.speed = 16 * mebibyte
      const pulling = yield* Effect.forkScoped(pullAtOnce(nodes, image.name))
      yield* eventually(() => upstream.state.blobBytes > 16 * mebibyte)
      const leads = yield* Effect.forEach(nodes, (node) =>
        Metrics.sum(node, "spegel_mirror_leases_total", `decision="go"`))
      const leader = nodes[leads.indexOf(Math.max(...leads))]
      leader?.mirror.child.kill("SIGKILL")
      yield* Fiber.join(pulling)
      // Its containerd goes on alone, so that a second node downloads the rest.
      assert.isBelow(upstream.state.blobBytes, 2.6 * layersOf(image), upstream.state.requests.join("\n"))
    }), 120_000)
})
