/**
 * A pod without the cluster key joins the network, says that it has a well-known tag, and serves an image of its own for it. What a
 * real containerd then has under that name is the question.
 */
import { assert, describe, it } from "@effect/vitest"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Reference from "@spegel-ts/oci/Reference"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as FakeRegistry from "@spegel-ts/testing/containerd/FakeRegistry"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import { eventually } from "@spegel-ts/testing/Eventually"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Result, Schedule } from "effect"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as ClusterKeys from "./ClusterKeys.ts"
import * as Metrics from "./Metrics.ts"

const missing = ContainerdDaemon.missingPrerequisite()

const image = "docker.io/library/nginx:latest"
const modes = ["require", "prefer", "off"] as const

/** A pod's mirror that holds another image under the name; gives that image's digest. */
const startRogue = Effect.fnUntraced(function*(ports: MirrorPorts.MirrorPorts) {
  const root = yield* temporary
  const writer = yield* OciLayoutWriter.make({ root })
  const reference = Result.getOrThrow(Reference.parse(image))
  const { objects } = yield* RandomImage.write({ writer, reference, layerSizes: [4096] })
  yield* SpegelProcess.start([
    "registry",
    `--store=oci-layout:${root}`,
    `--data-dir=${yield* temporary}`,
    ...MirrorPorts.flags("127.0.0.66", ports),
    "--bootstrap-kind=static",
    `--static-bootstrap-peers=127.0.0.2:${ports.router}`
  ])
  return objects[0]?.descriptor.digest ?? assert.fail("it has a manifest")
})

describe.skipIf(missing !== undefined)(
  `a pod without the key${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    it.live.each(modes)("and what it says of a tag, to a node with --peer-auth=%s", (mode) =>
      Effect.gen(function*() {
        const upstream = yield* FakeRegistry.start({ address: "127.0.0.100" })
        const ports = yield* MirrorPorts.free
        const key = yield* ClusterKeys.make
        const flags = mode === "off" ? [] : [key.flag, "--node-name=here"]
        const node = yield* Node.start(1, ports, upstream.host, {
          registry: [...flags, `--peer-auth=${mode}`, "--mirror-resolve-timeout=5s"],
          configuration: flags
        })
        // Docker Hub is a registry of this test.
        mkdirSync(join(node.certs, "docker.io"), { recursive: true })
        writeFileSync(join(node.certs, "docker.io", "hosts.toml"), `server = "${upstream.url}"\n`)
        const { code, stderr } = yield* SpegelProcess.run([
          "configuration",
          `--containerd-registry-config-path=${node.certs}`,
          "--mirrored-registries=https://docker.io",
          `--mirror-targets=${node.url}`,
          ...flags
        ])
        assert.strictEqual(code, 0, stderr)
        const rogue = yield* startRogue(ports)
        // It has been turned away, or is a member.
        yield* eventually(
          Effect.map(
            mode === "require"
              ? Metrics.sum(node, "spegel_peer_auth_failures_total", `reason="unproved"`)
              : Metrics.sum(node, "spegel_router_peers"),
            (count) => count > 0
          )
        )
        const headers = { authorization: `Bearer ${key.tokenOf("here")}` }
        const ask = Effect.promise(() =>
          fetch(`${node.url}/v2/library/nginx/manifests/latest?ns=docker.io`, { method: "HEAD", headers })
        )
        if (mode === "off") {
          yield* Effect.repeat(ask, {
            schedule: Schedule.spaced("50 millis"),
            until: ({ ok }) => ok,
            times: 400
          })
        } else {
          // Long enough for its record to come, if it were taken.
          for (let time = 0; time < 40; time++) {
            assert.strictEqual((yield* ask).status, 404)
            yield* Effect.sleep("50 millis")
          }
        }

        yield* node.pullByCri(image)
        const pulled = yield* node.containerd.ctr("images", "ls", `name==${image}`)
        const honest = FakeRegistry.manifestDigest("latest")
        assert.include(pulled, mode === "off" ? rogue : honest)
        assert.notInclude(pulled, mode === "off" ? honest : rogue)
        // The mirror was asked first; upstream where it had nothing.
        assert.strictEqual(upstream.requests.some((request) => request.includes("/manifests/latest")), mode !== "off")
      }))
  }
)
