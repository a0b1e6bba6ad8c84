/**
 * Right bytes under load: a slow commit must look like nothing else. Processors and disk are busy while each version of
 * containerd pulls the same image again and again; with `SPEGEL_FLIPS=all` 200 times in all.
 */
import { assert, describe, it } from "@effect/vitest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as CriClient from "@spegel-ts/testing/containerd/CriClient"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Schedule } from "effect"
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { availableParallelism } from "node:os"
import { join } from "node:path"
import { metric } from "./FlippedByte.ts"

const missing = ContainerdDaemon.missingPrerequisite("docker-registry")
const pulls = process.env["SPEGEL_FLIPS"] === "all" ? 200 : 6
const mebibyte = 1024 * 1024
const layers = 2

const busy = "for (;;);"
const writing = `
  const { openSync, writeSync, fsyncSync } = require("node:fs")
  const file = openSync(process.argv[1], "w")
  const bytes = Buffer.alloc(32 * 1024 * 1024, 1)
  for (;;) { writeSync(file, bytes, 0, bytes.length, 0); fsyncSync(file) }`

/** How many watched downloads ended so. */
const fate = (node: Node.Node, name: string) =>
  Effect.map(metric(node, String.raw`spegel_mirror_commits_total\{fate="${name}"\}`), ([count = 0]) => count)

/** A program that runs as long as the scope is open. */
const running = (program: string, ...args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, ["-e", program, ...args], { stdio: "ignore" })),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

describe.skipIf(missing !== undefined)(
  `right bytes under load${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    it.live("are committed: nobody is blamed, and nothing is discarded", () =>
      Effect.gen(function*() {
        const upstream = yield* Upstream.start
        const ports = yield* MirrorPorts.free
        const holder = yield* Node.start(1, ports, upstream.host)
        const image = yield* upstream.push({ tag: "v1", layers, layerSize: 16 * mebibyte })
        yield* holder.pull(image.name)
        const layer = image.objects.at(-1)?.descriptor.digest ?? ""
        const nodes = yield* Effect.forEach(ContainerdPackages.versions, (version, index) =>
          Effect.flatMap(ContainerdPackages.fetch(version), (programs) =>
            Node.start(index + 2, ports, upstream.host, {
              programs,
              registry: ["--mirror-resolve-timeout=5s", "--mirror-first-byte-timeout=10s", "--mirror-min-speed=0"]
            })))
        yield* Effect.forEach(Array.from({ length: availableParallelism() }), () =>
          running(busy))
        yield* Effect.flatMap(temporary, (directory) =>
          running(writing, join(directory, "file")))

        for (let turn = 0; turn < pulls; turn++) {
          const node = nodes[turn % nodes.length] ?? assert.fail("there are no nodes")
          const before = yield* fate(node, "committed")
          yield* turn % 2 === 0 ? node.pull(image.name) : node.pullByCri(image.name)
          // A layer that is removed before the mirror looks would be hashed.
          yield* Effect.repeat(fate(node, "committed"), {
            schedule: Schedule.spaced("20 millis"),
            until: (committed) => committed >= before + layers,
            times: 500
          })
          yield* CriClient.removeImage(node.containerd.socket, image.name)
          yield* Effect.ignore(node.remove(image.name))
          const path = join(node.containerd.contentPath, "blobs", "sha256", layer.slice("sha256:".length))
          yield* Effect.repeat(Effect.sync(() => existsSync(path)), {
            schedule: Schedule.spaced("20 millis"),
            until: (held) => !held,
            times: 3000
          })
        }
        for (const [index, node] of nodes.entries()) {
          const pulled = Math.ceil((pulls - index) / nodes.length)
          const fates = yield* Effect.forEach(["committed", "right", "wrong", "unknown"], (name) => fate(node, name))
          assert.deepStrictEqual(fates, [layers * pulled, 0, 0, 0])
          assert.deepStrictEqual(yield* metric(node, "spegel_mirror_corruptions_total"), [0])
          assert.deepStrictEqual(yield* metric(node, "spegel_mirror_ingests_discarded_total"), [0])
        }
      }), 3_600_000)
  }
)
