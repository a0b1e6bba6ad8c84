import { assert, describe, it } from "@effect/vitest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { Effect, Fiber } from "effect"

const missing = ContainerdDaemon.missingPrerequisite("docker-registry")
const layerSize = 256 * 1024 * 1024

/** The data plane that a mirror says it has. */
const planeOf = ({ metrics }: Node.Node) =>
  Effect.promise(async () => {
    const text = await (await fetch(`${metrics}/metrics`)).text()
    return /^spegel_data_plane\{plane="([^"]+)"\} 1$/m.exec(text)?.[1]
  })

describe.skipIf(missing !== undefined)(
  `a mirror that ends in the middle of a foreign call${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    it.live(
      "costs no pull, and after two such ends the portable data plane is used until a run ends well",
      () =>
        Effect.gen(function*() {
          const upstream = yield* Upstream.start
          const ports = yield* MirrorPorts.free
          const holder = yield* Node.start(1, ports, upstream.host)
          const node = yield* Node.start(2, ports, upstream.host)
          let mirror = node.mirror
          for (const [turn, tag] of ["v1", "v2"].entries()) {
            // Another layer each time.
            const image = yield* upstream.push({ tag, layers: 1, layerSize: layerSize + turn })
            yield* holder.pull(image.name)
            yield* Lookup.untilFound(node.url, upstream.repository, Lookup.pathsOf(image))
            assert.strictEqual(yield* planeOf(node), "zero-copy")
            upstream.state.blobBytes = 0
            const pulling = yield* Effect.forkScoped(node.pull(image.name))
            yield* Node.untilPulling(node)
            mirror.child.kill("SIGSEGV")
            assert.isUndefined(pulling.pollUnsafe(), "it was over before the mirror ended")
            yield* Fiber.join(pulling)
            // The rest, and not all of it.
            assert.isAbove(upstream.state.blobBytes, 0)
            assert.isBelow(upstream.state.blobBytes, layerSize)
            yield* mirror.finished
            mirror = yield* node.startMirror
          }
          assert.strictEqual(yield* planeOf(node), "portable")
          assert.include(mirror.output.stderr, "2 runs in a row ended in the middle of it")
          mirror.child.kill("SIGTERM")
          assert.strictEqual((yield* mirror.finished).code, 0)
          yield* node.startMirror
          assert.strictEqual(yield* planeOf(node), "zero-copy")
        }),
      180_000
    )
  }
)
