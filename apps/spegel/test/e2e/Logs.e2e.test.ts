import { assert, describe, it } from "@effect/vitest"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as FaultPeer from "@spegel-ts/faults/FaultPeer"
import * as FaultServer from "@spegel-ts/faults/FaultServer"
import * as Reference from "@spegel-ts/oci/Reference"
import type { PullEvent } from "@spegel-ts/registry/PullLog"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as LogSink from "@spegel-ts/testing/node/LogSink"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Schedule } from "effect"

const missing = ContainerdDaemon.missingPrerequisite("docker-registry")
const layerSize = 128 * 1024 * 1024
/** For figures: `LOG_ROUNDS=5 npm run test:e2e apps/spegel/test/e2e/Logs.e2e.test.ts`. */
const rounds = Number(process.env["LOG_ROUNDS"] ?? 1)

const metric = (node: Node.Node, name: string) =>
  Effect.promise(async () => {
    const lines = (await (await fetch(`${node.metrics}/metrics`)).text()).split("\n")
    return Number(lines.find((line) => line.startsWith(`${name} `))?.slice(name.length))
  })

/** More lines than a pipe and the mirror's memory hold. */
const flood = (node: Node.Node) =>
  Effect.forEach(
    Array.from({ length: 300 }),
    () =>
      Effect.promise(() =>
        fetch(`${node.url}/v2/absent/manifests/v1?ns=registry.example&long=${"x".repeat(6000)}`).then((response) =>
          response.arrayBuffer()
        )
      ),
    { discard: true }
  )

/** One pull by a new node whose only peer resets the layer in the middle; gives how long it took, in milliseconds. */
const pullFromDyingPeer = Effect.fnUntraced(function*(kind: LogSink.Kind) {
  const upstream = yield* Upstream.start
  const ports = yield* MirrorPorts.free
  const layout = yield* temporary
  const writer = yield* OciLayoutWriter.make({ root: layout })
  const reference = { registry: upstream.host, repository: "team/app", tag: "v1" }
  const image = yield* RandomImage.write({ writer, reference, layerSizes: [layerSize] })
  yield* upstream.publish(writer, image, reference.tag)
  const objects = image.objects.map(({ descriptor }) => descriptor)
  const node = yield* Node.start(1, ports, upstream.host, {
    registry: ["--mirror-resolve-timeout=5s", "--log-level=DEBUG"],
    stderr: yield* LogSink.stderrOf(kind)
  })
  const peer = yield* FaultPeer.start({
    host: "127.0.0.9",
    routerPort: ports.router,
    registryPort: ports.registry,
    bootstrap: [`${node.address}:${ports.router}`],
    layout,
    name: Reference.name(reference),
    objects,
    misbehaviour: { fault: "reset mid-body", kind: "GET large layer" },
    happenings: FaultServer.none
  })
  yield* Lookup.untilFound(node.url, upstream.repository, ["manifests/v1"])
  yield* flood(node)
  const dropped = yield* metric(node, "spegel_log_lines_dropped_total")
  assert.strictEqual(dropped > 0, kind !== "read", `${dropped} lines were dropped`)

  const begun = performance.now()
  yield* node.fetch(Reference.name(reference))
  const millis = performance.now() - begun

  // The test has to mean something: a part came from the peer, the rest from upstream.
  assert.isAbove((yield* peer.counts).faulty, 0)
  const pulls = yield* Effect.promise(async () => await (await fetch(`${node.metrics}/debug/pulls`)).json())
  const layer = objects.at(-1)?.digest
  const served = (pulls as ReadonlyArray<PullEvent>).filter(({ bytes, content }) => content === layer && bytes > 0)
  assert.isAbove(served.reduce((sum, { bytes }) => sum + bytes, 0), 0)
  assert.isBelow(upstream.state.blobBytes, layerSize)
  assert.isAbove(upstream.state.blobBytes, 0)
  // The tracker lives: it advertises the image.
  yield* metric(node, `spegel_advertised_image_tags{registry="${upstream.host}"}`).pipe(
    Effect.repeat({ schedule: Schedule.spaced("50 millis"), until: (tags) => tags === 1 })
  )
  node.mirror.child.kill("SIGTERM")
  assert.strictEqual((yield* node.mirror.finished).code, 0)
  return millis
}, Effect.scoped)

const median = (values: ReadonlyArray<number>) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

describe.skipIf(missing !== undefined)(`a log${missing === undefined ? "" : ` (skipped: ${missing})`}`, () => {
  it.live("that nobody reads, or that cannot be written, is in no pull's way", () =>
    Effect.gen(function*() {
      const took = new Map<LogSink.Kind, Array<number>>(LogSink.kinds.map((kind) => [kind, []]))
      for (let round = 0; round < rounds; round++) {
        for (const kind of LogSink.kinds) took.get(kind)?.push(yield* pullFromDyingPeer(kind))
      }
      const base = median(took.get("read") ?? [])
      // A figure, not a claim: a busy machine would break it.
      yield* Effect.sync(() => {
        for (const [kind, millis] of took) {
          const ratio = (median(millis) / base).toFixed(2)
          const all = millis.map((one) => one.toFixed(0)).join(" ")
          process.stdout.write(`pull with a dying peer, log ${kind}: ${ratio}x of a log that is read (${all} ms)\n`)
        }
      })
    }), 300_000 * rounds)
})
