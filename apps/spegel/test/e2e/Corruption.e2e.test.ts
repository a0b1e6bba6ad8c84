import { assert, describe, it } from "@effect/vitest"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as FaultPeer from "@spegel-ts/faults/FaultPeer"
import { none } from "@spegel-ts/faults/FaultServer"
import * as Reference from "@spegel-ts/oci/Reference"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as CriClient from "@spegel-ts/testing/containerd/CriClient"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Exit, Schedule } from "effect"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { damage, ingests, metric } from "./FlippedByte.ts"

const missing = ContainerdDaemon.missingPrerequisite("docker-registry")
const mebibyte = 1024 * 1024

const holds = (node: Node.Node, digest: string) =>
  Effect.sync(() => existsSync(join(node.containerd.contentPath, "blobs", "sha256", digest.slice("sha256:".length))))

describe.skipIf(missing !== undefined)(`a lying peer${missing === undefined ? "" : ` (skipped: ${missing})`}`, () => {
  it.live("costs a new node nothing where it lies about a manifest", () =>
    Effect.gen(function*() {
      const upstream = yield* Upstream.start
      const ports = yield* MirrorPorts.free
      const liar = yield* Node.start(1, ports, upstream.host)
      const image = yield* upstream.push({ tag: "v1", layers: 1, layerSize: mebibyte })
      yield* liar.pull(image.name)
      const index = image.objects[0]?.descriptor.digest ?? ""
      const node = yield* Node.start(2, ports, upstream.host)
      yield* Lookup.untilFound(node.url, upstream.repository, [`manifests/${index}`])
      yield* damage(liar, index)
      yield* node.pullByCri(image.name)
      assert.deepStrictEqual(yield* metric(node, "spegel_mirror_corruptions_total"), [1])
    }), 120_000)

  it.live("costs each node one failed pull where it goes on lying", () =>
    Effect.gen(function*() {
      const upstream = yield* Upstream.start
      const ports = yield* MirrorPorts.free
      const layout = yield* temporary
      const writer = yield* OciLayoutWriter.make({ root: layout })
      const reference = { registry: upstream.host, repository: "team/app", tag: "v1" }
      const image = yield* RandomImage.write({ writer, reference, layerSizes: [16 * mebibyte] })
      yield* upstream.publish(writer, image, reference.tag)
      const objects = image.objects.map(({ descriptor }) => descriptor)
      const layer = objects.at(-1)?.digest ?? ""
      const name = Reference.name(reference)

      // On a busy machine no lookup is late.
      const options = { registry: ["--mirror-resolve-timeout=5s"] }
      const node = yield* Node.start(1, ports, upstream.host, options)
      const liar = yield* FaultPeer.start({
        host: "127.0.0.9",
        routerPort: ports.router,
        registryPort: ports.registry,
        bootstrap: [`${node.address}:${ports.router}`],
        layout,
        name,
        objects,
        misbehaviour: { fault: "wrong bytes", kind: "GET large layer" },
        happenings: none
      })
      const lies = Effect.map(liar.counts, ({ faulty }) => faulty)
      let told = 0
      for (const index of [1, 2, 3]) {
        const deceived = index === 1 ? node : yield* Node.start(index, ports, upstream.host, options)
        yield* Lookup.untilFound(deceived.url, upstream.repository, [`blobs/${layer}`])
        assert.isTrue(Exit.isFailure(yield* Effect.exit(deceived.pullByCri(name))))
        assert.isAbove(yield* lies, told, "it has lied to this node, too")
        told = yield* lies
        yield* Effect.sleep("1 second")
        yield* deceived.pullByCri(name)
        assert.strictEqual(yield* lies, told, "it is not asked again")
        assert.deepStrictEqual(yield* metric(deceived, "spegel_mirror_corruptions_total"), [1])
        // The next one has nobody else to ask.
        yield* CriClient.removeImage(deceived.containerd.socket, name)
        yield* Effect.repeat(holds(deceived, layer), { schedule: Schedule.spaced("50 millis"), until: (held) => !held })
      }
    }), 120_000)

  for (const client of ["ctr", "CRI"] as const) {
    it.live(
      `costs a cluster of new nodes one failed pull of a large layer at most, by ${client}`,
      () =>
        Effect.gen(function*() {
          const upstream = yield* Upstream.start
          const ports = yield* MirrorPorts.free
          const liar = yield* Node.start(1, ports, upstream.host)
          const image = yield* upstream.push({ tag: "v1", layers: 1, layerSize: 64 * mebibyte })
          yield* liar.pull(image.name)
          const layer = image.objects.at(-1)?.descriptor.digest ?? ""
          yield* damage(liar, layer)

          const node = yield* Node.start(2, ports, upstream.host)
          yield* Lookup.untilFound(node.url, upstream.repository, [`blobs/${layer}`])
          const pull = client === "ctr" ? node.pull(image.name) : node.pullByCri(image.name)
          const first = yield* Effect.exit(pull)
          // The kubelet waits ten seconds; a person may be quicker.
          yield* Effect.sleep("1 second")
          const second = yield* Effect.exit(pull)
          assert.deepStrictEqual([Exit.isSuccess(first), Exit.isSuccess(second)], [false, true], String(second))
          assert.deepStrictEqual(yield* metric(node, "spegel_mirror_corruptions_total"), [1])
          assert.include(node.mirror.output.stderr, `sent wrong bytes for ${layer}`)
          assert.deepStrictEqual(yield* ingests(node), [])
          // The liar looked at what it holds, and lies no more: the next node's first pull succeeds.
          assert.include(liar.mirror.output.stderr, `copy of ${layer} is damaged`)
          const third = yield* Node.start(3, ports, upstream.host)
          yield* client === "ctr" ? third.pull(image.name) : third.pullByCri(image.name)
          assert.deepStrictEqual(yield* metric(third, "spegel_mirror_corruptions_total"), [0])
        }),
      120_000
    )
  }
})
