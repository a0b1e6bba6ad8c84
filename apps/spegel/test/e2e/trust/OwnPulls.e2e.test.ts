/**
 * Slow readers hold all places for uploads of a mirror. The containerd of its own node pulls all the same: its token names the node,
 * and what it downloads is watched.
 */
import { assert, describe, it } from "@effect/vitest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import { eventually } from "@spegel-ts/testing/Eventually"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { Effect, type Scope } from "effect"
import { connect } from "node:net"
import * as ClusterKeys from "./ClusterKeys.ts"
import * as Metrics from "./Metrics.ts"

const missing = ContainerdDaemon.missingPrerequisite("docker-registry")
const mebibyte = 1024 * 1024
/** `--max-uploads` has this by default. */
const places = 128
const readers = 200

/** More than the kernel holds between two sockets: who does not read stays an upload. */
const heldBytes = 48 * mebibyte
const pulledBytes = 64 * mebibyte

/** Asks for a body and never reads it, from an address of its own; gives the status. */
const readSlowly = (url: string, reader: number, authorization: string) =>
  Effect.flatMap(
    Effect.acquireRelease(
      Effect.sync(() => {
        const { hostname: host, port } = new URL(url)
        return connect({ host, port: Number(port), localAddress: `127.1.${reader >> 8}.${reader & 255}` })
      }),
      (socket) => Effect.sync(() => socket.destroy())
    ),
    (socket) =>
      Effect.callback<number>((resume) => {
        const { pathname, search } = new URL(url)
        socket.on("error", () => resume(Effect.succeed(0)))
        socket.once("data", (bytes: Buffer) => {
          socket.pause()
          resume(Effect.succeed(Number(bytes.toString("latin1", 9, 12))))
        })
        socket.write(`GET ${pathname}${search} HTTP/1.1\r\nhost: mirror\r\n${authorization}\r\n`)
      })
  )

interface Round {
  readonly version: ContainerdPackages.Version
  /** In `prefer`, readers without a token hold places, too. */
  readonly mode: "require" | "prefer"
}

const rounds: ReadonlyArray<Round> = [
  { version: "1.6", mode: "prefer" },
  { version: "1.7", mode: "require" },
  { version: "2.1", mode: "require" }
]

const start = Effect.fnUntraced(function*({ mode, version }: Round) {
  const upstream = yield* Upstream.start
  const ports = yield* MirrorPorts.free
  const key = yield* ClusterKeys.make
  const flags = (index: number) => ({
    registry: [key.flag, `--node-name=node-${index}`, `--peer-auth=${mode}`, "--mirror-resolve-timeout=5s"],
    configuration: [key.flag, `--node-name=node-${index}`]
  })
  const holder = yield* Node.start(1, ports, upstream.host, flags(1))
  const node = yield* Node.start(2, ports, upstream.host, {
    ...flags(2),
    programs: yield* ContainerdPackages.fetch(version)
  })
  const held = yield* upstream.push({ tag: "held", layers: 1, layerSize: heldBytes, seed: 1 })
  yield* node.pullByCri(held.name)
  const pushed = yield* Effect.forEach(
    ["own", "other"],
    (tag, index) => upstream.push({ tag, layers: 1, layerSize: pulledBytes, seed: index + 2 })
  )
  const authorization = `Bearer ${key.tokenOf("node-2")}`
  yield* Effect.forEach(pushed, (image) => holder.pull(image.name))
  yield* Effect.forEach(
    [held, ...pushed],
    (image) => Lookup.untilFound(node.url, upstream.repository, Lookup.pathsOf(image), { authorization })
  )
  const layer = held.objects.at(-1)?.descriptor.digest ?? assert.fail("it has a layer")
  return {
    upstream,
    key,
    node,
    heldUrl: `${node.url}/v2/team/app/blobs/${layer}?ns=${upstream.host}`,
    names: { own: `${upstream.host}/team/app:own`, other: `${upstream.host}/team/app:other` }
  }
})

interface Answered {
  readonly served: number
  readonly refused: number
}

/** As many clients as there are; gives what they were answered. */
const crowd = (url: string, authorization: string): Effect.Effect<Answered, never, Scope.Scope> =>
  Effect.map(
    Effect.forEach(Array.from({ length: readers }, (_, reader) => reader), (reader) =>
      readSlowly(url, reader, authorization), { concurrency: 20 }),
    (statuses) => {
      const count = (wanted: number) =>
        statuses.filter((status) =>
          status === wanted
        ).length
      return { served: count(200), refused: count(404) }
    }
  )

const all: Answered = { served: places, refused: readers - places }
const none: Answered = { served: 0, refused: readers }

describe.skipIf(missing !== undefined)(
  `slow readers of a mirror${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    it.live.each(rounds)(
      "do not keep its own containerd $version from pulling (--peer-auth=$mode)",
      (round) =>
        Effect.gen(function*() {
          const { heldUrl, key, names, node, upstream } = yield* start(round)
          const inflight = Metrics.sum(node, "spegel_uploads_inflight")
          const isOpen = round.mode === "prefer"
          assert.deepStrictEqual(yield* crowd(heldUrl, ""), isOpen ? all : none)
          assert.strictEqual(yield* inflight, isOpen ? places : 0)
          const foreign = `authorization: Bearer ${key.tokenOf("node-9")}\r\n`
          assert.deepStrictEqual(yield* crowd(heldUrl, foreign), isOpen ? none : all)
          assert.strictEqual(yield* inflight, places)

          upstream.state.blobBytes = 0
          yield* node.pullByCri(names.own)
          assert.strictEqual(upstream.state.blobBytes, 0)
          assert.strictEqual(yield* inflight, places)
          // Its download was watched until containerd had committed it.
          yield* eventually(
            Effect.map(
              Metrics.sum(node, "spegel_mirror_commits_total", `fate="committed"`),
              (committed) => committed >= 1
            )
          )

          // With the token of another node it is refused, and goes to upstream.
          const { code, stderr } = yield* SpegelProcess.run([
            "configuration",
            `--containerd-registry-config-path=${node.certs}`,
            `--mirrored-registries=http://${upstream.host}`,
            `--mirror-targets=${node.url}`,
            key.flag,
            "--node-name=node-9"
          ])
          assert.strictEqual(code, 0, stderr)
          const watched = yield* Metrics.sum(node, "spegel_mirror_commits_total")
          yield* node.pullByCri(names.other)
          assert.isAtLeast(upstream.state.blobBytes, pulledBytes)
          assert.strictEqual(yield* inflight, places)
          assert.strictEqual(yield* Metrics.sum(node, "spegel_mirror_commits_total"), watched)
        })
    )
  }
)
