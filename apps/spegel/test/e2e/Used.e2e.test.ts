import { assert, describe, it } from "@effect/vitest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as FakeRegistry from "@spegel-ts/testing/containerd/FakeRegistry"
import { eventually, start, type WatchedNode } from "@spegel-ts/testing/node/WatchedNode"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import { rmSync } from "node:fs"

const missing = ContainerdDaemon.missingPrerequisite()

/** Ways in which an image comes to a node without a request to its mirror: each is given a tag of its own. */
const without = Effect.fnUntraced(function*({ node, pull, upstream, version }: WatchedNode) {
  const directory = yield* temporary
  const other = yield* FakeRegistry.start({ address: "127.0.0.101" })
  const { ctr } = node.containerd
  const repository = `${upstream.host}/team/app`
  // The transfer service of 2.x knows overlayfs only, which may not be there.
  const local = version === "1.6" ? [] : ["--local"]
  const ctrPull = (tag: string, ...more: ReadonlyArray<string>) =>
    ctr(...more, "image", "pull", "--plain-http", "--snapshotter", "native", ...local, `${repository}:${tag}`)
  const ctrImport = (tag: string, ...more: ReadonlyArray<string>) =>
    Effect.flatMap(
      FakeRegistry.save(directory, repository, tag),
      (archive) => ctr("image", "import", "--no-unpack", ...more, archive)
    )
  const managed = (tag: string) => ctr("image", "label", `${repository}:${tag}`, "io.cri-containerd.image=managed")

  const ways: Readonly<Record<string, (tag: string) => Effect.Effect<unknown, Error>>> = {
    "an import": ctrImport,
    "an import with a record by its digest, as kind does, and a pull of it": (tag) =>
      Effect.andThen(ctrImport(tag, "--digests"), pull(tag)),
    "an import, labelled as the CRI plugin does, and a pull of it": (tag) =>
      Effect.andThen(ctrImport(tag), Effect.andThen(managed(tag), pull(tag))),
    "an import, and a pull of another tag of it": (tag) => Effect.andThen(ctrImport(tag), pull(`${tag}-also-b`)),
    "a pull by ctr": (tag) => ctrPull(tag),
    "a pull by ctr, and one by the kubelet": (tag) => Effect.andThen(ctrPull(tag), pull(tag)),
    "a pull by ctr, labelled, and one of another tag": (tag) =>
      Effect.andThen(ctrPull(tag), Effect.andThen(managed(tag), pull(`${tag}-also-b`))),
    "a pull by ctr, and one from another repository": (tag) =>
      Effect.andThen(ctrPull(tag), node.pullByCri(`${upstream.host}/other/app:${tag}`)),
    "a pull by ctr in another namespace, and one by the kubelet": (tag) =>
      Effect.andThen(ctrPull(tag, "--namespace", "others"), pull(tag)),
    "an image that is removed and imported again": (tag) =>
      Effect.andThen(
        ctrImport(tag),
        Effect.andThen(node.remove(`${repository}:${tag}`), ctrImport(tag))
      ),
    "a pull from a registry that is not mirrored": (tag) => node.pullByCri(`${other.host}/team/app:${tag}`)
  }
  return Object.entries(ways)
})

const note = missing === undefined ? "" : ` (skipped: ${missing})`

describe.skipIf(missing !== undefined)(
  `a mirror that containerd uses${note}`,
  { timeout: 400_000, concurrent: true },
  () => {
    it.live.each(ContainerdPackages.versions)(
      "says nothing while 200 images are pulled, imported and side-loaded, with containerd %s",
      (version) =>
        Effect.gen(function*() {
          // Tags are asked of upstream alone, so that a pull of what is held asks the mirror for nothing.
          const watched = yield* start({ version, configuration: ["--tag-resolution=never"] })
          const { faults, misses, node, pull, restartMirror, said } = watched
          const ways = yield* without(watched)
          /** How the images came, by their digests. */
          const came = new Map<string, string>()
          const run = Effect.fnUntraced(function*(turn: number) {
            const [name, way] = ways[turn % ways.length] ?? assert.fail()
            const tag = `side-${turn}`
            yield* Effect.mapError(way(tag), ({ message }) => `${name}: ${message}`)
            came.set(FakeRegistry.manifestDigest(tag), name)
          })

          for (let turn = 0; turn < 50; turn++) {
            yield* pull(`pulled-${turn}`)
            yield* run(turn)
          }
          assert.isAtLeast(yield* misses, 50, "the mirror was asked")
          // It has never been asked: a single pull without a request would be enough.
          yield* restartMirror
          for (let turn = 50; turn < 150; turn++) yield* run(turn)
          assert.strictEqual(yield* misses, 0, "the mirror was not asked")

          // Pulls are judged one after another: where this one is told, nothing was told of those before it.
          rmSync(node.certs, { recursive: true })
          yield* pull("unused")
          yield* eventually(60, () => assert.isAbove(said("WARN").length, 0))
          const told = said("WARN").map((line) => /@(sha256:[0-9a-f]+) without asking/.exec(line)?.[1] ?? line)
          assert.deepStrictEqual(told.map((digest) => came.get(digest) ?? digest), [
            FakeRegistry.manifestDigest("unused")
          ])
          assert.deepStrictEqual(yield* faults, ["NotAsked"])
        })
    )
  }
)
