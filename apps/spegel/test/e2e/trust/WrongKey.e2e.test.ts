/** A node with another cluster key than the rest: it is alone, says why, and its pulls cost what they cost without a mirror. */
import { assert, describe, it } from "@effect/vitest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import { eventually } from "@spegel-ts/testing/Eventually"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Console, Effect, Fiber, Schedule } from "effect"
import { mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as ClusterKeys from "./ClusterKeys.ts"
import * as Metrics from "./Metrics.ts"

const missing = ContainerdDaemon.missingPrerequisite("docker-registry")
const mebibyte = 1024 * 1024
/** Pulls of either kind. */
const pulls = 7

const median = (values: ReadonlyArray<number>) =>
  values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)] ?? NaN

const warnings = ({ mirror }: Node.Node) => mirror.output.stderr.split("\n").filter((line) => line.includes(`"WARN"`))

/** Removes all content, and waits until it is gone: containerd takes content that is still on its disk for there. */
const forget = ({ containerd: { contentPath, ctr } }: Node.Node) =>
  Effect.gen(function*() {
    const digests = (yield* ctr("content", "ls", "--quiet")).split("\n").filter((line) => line !== "")
    yield* Effect.forEach(digests, (digest) => Effect.ignore(ctr("content", "rm", digest)))
    return digests.length + readdirSync(join(contentPath, "blobs", "sha256")).length
  }).pipe(Effect.repeat({ schedule: Schedule.spaced("20 millis"), until: (left) => left === 0, times: 500 }))

describe.skipIf(missing !== undefined)(
  `a node with another key${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    it.live("is alone and says why; pulls take no longer than without a mirror; others share", () =>
      Effect.gen(function*() {
        const upstream = yield* Upstream.start
        const ports = yield* MirrorPorts.free
        const [key, foreign] = [yield* ClusterKeys.make, yield* ClusterKeys.make]
        const start = (index: number, { flag }: ClusterKeys.ClusterKey) =>
          Node.start(index, ports, upstream.host, {
            registry: [flag, `--node-name=node-${index}`, "--mirror-resolve-timeout=5s"],
            configuration: [flag, `--node-name=node-${index}`]
          })
        const [holder, other] = [yield* start(1, key), yield* start(2, key)]
        // It looks for others for 15 s before it says that it is ready.
        const starting = yield* Effect.forkScoped(start(3, foreign))
        const image = yield* upstream.push({ tag: "v1", layers: 4, layerSize: 16 * mebibyte })
        yield* holder.pull(image.name)
        yield* Lookup.untilFound(other.url, upstream.repository, Lookup.pathsOf(image), {
          authorization: `Bearer ${key.tokenOf("node-2")}`
        })

        const odd = yield* Fiber.join(starting)

        // What the node does without a mirror.
        const plain = join(yield* temporary, upstream.host.replace(":", "_") + "_")
        mkdirSync(plain)
        writeFileSync(
          join(plain, "hosts.toml"),
          `server = "http://${upstream.host}"\n[host."http://${upstream.host}"]\ncapabilities = ["pull", "resolve"]\n`
        )
        const timed = Effect.fnUntraced(function*(hosts: string) {
          upstream.state.blobBytes = 0
          const started = performance.now()
          yield* odd.containerd.ctr("content", "fetch", "--hosts-dir", hosts, image.name)
          const millis = performance.now() - started
          assert.isAtLeast(upstream.state.blobBytes, 4 * 16 * mebibyte)
          yield* odd.remove(image.name)
          yield* forget(odd)
          return millis
        })
        const millis = { mirror: [] as Array<number>, plain: [] as Array<number> }
        const refused = Metrics.sum(odd, "spegel_mirror_requests_total", `cache="miss"`)
        const spent = Metrics.sum(odd, "http_request_duration_seconds_sum", `code="404"`)
        const before = { refused: yield* refused, spent: yield* spent }
        for (let time = 0; time < pulls; time++) {
          for (const kind of time % 2 === 0 ? ["mirror", "plain"] as const : ["plain", "mirror"] as const) {
            millis[kind].push(yield* timed(kind === "mirror" ? odd.certs : join(plain, "..")))
          }
        }
        // Its mirror took its token, and looked for peers.
        assert.isAtLeast((yield* refused) - before.refused, pulls * 4)
        const own = 1000 * ((yield* spent) - before.spent) / pulls
        const ratio = median(millis.mirror) / median(millis.plain)
        yield* Console.log(
          `pulls of a node with another key: ${median(millis.mirror).toFixed(0)} ms, without a mirror: ` +
            `${median(millis.plain).toFixed(0)} ms, ratio ${
              ratio.toFixed(3)
            } (medians of ${pulls}); the refusals of a pull took its mirror ${own.toFixed(0)} ms`
        )
        assert.isBelow(ratio, 2)

        assert.strictEqual(yield* Metrics.sum(odd, "spegel_router_peers"), 0)
        const why = "ready, alone: peers have another cluster key; give all nodes the same cluster key file"
        assert.strictEqual(warnings(odd).filter((line) => line.includes(why)).length, 1, odd.mirror.output.stderr)

        // The others have their pulls from each other.
        upstream.state.blobBytes = 0
        yield* other.pull(image.name)
        assert.strictEqual(upstream.state.blobBytes, 0)
        yield* eventually(Effect.map(Metrics.sum(other, "spegel_router_peers"), (peers) => peers === 1))
        for (const node of [holder, other]) {
          const told = warnings(node)
          assert.isAtMost(told.length, 1, node.mirror.output.stderr)
          for (const line of told) assert.include(line, "peers have another cluster key (1)")
        }
      }))
  }
)
