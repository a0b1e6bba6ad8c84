import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import type { PullEvent } from "@spegel-ts/registry/PullLog"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import * as Command from "@spegel-ts/testing/process/Command"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Fiber, Schedule } from "effect"
import { createHash } from "node:crypto"
import { get, type IncomingMessage } from "node:http"
import * as Leftovers from "./Leftovers.ts"

const missing = ContainerdDaemon.missingPrerequisite("docker-registry", "skopeo")
const mebibyte = 1024 * 1024

const cluster = Effect.fnUntraced(function*(count: number) {
  const upstream = yield* Upstream.start
  const ports = yield* MirrorPorts.free
  const nodes: Array<Node.Node> = []
  for (let index = 1; index <= count; index++) nodes.push(yield* Node.start(index, ports, upstream.host))
  const [first, second, third] = nodes
  if (first === undefined || second === undefined) return yield* Effect.die(new Error("at least two nodes"))
  return { upstream, nodes, first, second, third }
})

/** The requests that a node's mirror left to upstream, with the reasons. */
const unservedBy = (node: Node.Node) =>
  Effect.promise(async () => {
    const pulls = (await (await fetch(`${node.metrics}/debug/pulls`)).json()) as ReadonlyArray<PullEvent>
    return pulls.filter(({ source }) => source === "none").map((pull) => JSON.stringify(pull))
  })

const body = (url: string) =>
  Effect.callback<IncomingMessage, Error>((resume) => {
    get(url, (response) => resume(Effect.succeed(response))).on("error", (error) => resume(Effect.fail(error)))
  })

describe.skipIf(missing !== undefined)(`a cluster${missing === undefined ? "" : ` (skipped: ${missing})`}`, () => {
  let leftovers: ReturnType<typeof Leftovers.watch>
  beforeAll(() => {
    leftovers = Leftovers.watch()
  })
  afterAll(() => leftovers.restore())

  it.live("nodes 2 and 3 pull an image of 4 x 64 MiB without a blob byte from upstream", () =>
    Effect.gen(function*() {
      const { first, second, third, upstream } = yield* cluster(3)
      const image = yield* upstream.push({ tag: "v1", layers: 4, layerSize: 64 * mebibyte })
      yield* first.pull(image.name)
      assert.isAtLeast(upstream.state.blobBytes, 4 * 64 * mebibyte)
      upstream.state.blobBytes = 0
      yield* Lookup.untilFound(second.url, upstream.repository, Lookup.pathsOf(image))
      yield* second.pullByCri(image.name)
      yield* third?.pull(image.name) ?? Effect.die("no third node")
      const unserved = yield* Effect.forEach([second, ...(third === undefined ? [] : [third])], unservedBy)
      assert.strictEqual(upstream.state.blobBytes, 0, unserved.flat().join("\n"))
      // containerd commits nothing whose digest is wrong: what it lists, it has verified.
      for (const node of [second, third]) {
        const content = yield* node?.containerd.ctr("content", "ls") ?? Effect.succeed("")
        for (const { descriptor } of image.objects) assert.include(content, descriptor.digest)
      }
    }), 240_000)

  it.live(
    "a tag pulled while everything runs resolves on another node with upstream down",
    () =>
      Effect.gen(function*() {
        const { first, second, upstream } = yield* cluster(2)
        const image = yield* upstream.push({ tag: "v2", layers: 2, layerSize: mebibyte })
        yield* first.pullByCri(image.name)
        yield* Lookup.untilFound(second.url, upstream.repository, Lookup.pathsOf(image))
        upstream.state.down = true
        yield* second.pullByCri(image.name)
        const images = yield* second.containerd.ctr("images", "ls", "-q")
        assert.include(images, image.name)
      }),
    120_000
  )

  it.live(
    "the pull succeeds from upstream with an empty mirror, with all peers dead, and with the mirror dead",
    () =>
      Effect.gen(function*() {
        const { first, second, upstream } = yield* cluster(2)
        const push = (tag: string) => upstream.push({ tag, layers: 2, layerSize: 2 * mebibyte })

        const empty = yield* push("empty")
        yield* second.pull(empty.name)

        const orphaned = yield* push("orphaned")
        yield* first.pull(orphaned.name)
        yield* Lookup.untilFound(second.url, upstream.repository, Lookup.pathsOf(orphaned))
        first.mirror.child.kill("SIGKILL")
        yield* first.mirror.finished
        yield* second.pullByCri(orphaned.name)

        const alone = yield* push("alone")
        second.mirror.child.kill("SIGKILL")
        yield* second.mirror.finished
        yield* second.pullByCri(alone.name)
        yield* second.remove(alone.name)
        yield* second.pull(alone.name)
      }),
    120_000
  )

  for (
    const [title, dies] of [
      ["the node's own mirror", "second"],
      ["the only peer that has the blob", "first"]
    ] as const
  ) {
    it.live(
      `${title} dies in the middle of a body: containerd takes only the rest from upstream`,
      () =>
        Effect.gen(function*() {
          const nodes = yield* cluster(2)
          const { first, second, upstream } = nodes
          const image = yield* upstream.push({ tag: "dies", layers: 1, layerSize: 256 * mebibyte })
          yield* first.pull(image.name)
          yield* Lookup.untilFound(second.url, upstream.repository, Lookup.pathsOf(image))
          upstream.state.blobBytes = 0
          const pulling = yield* Effect.forkScoped(second.pullByCri(image.name))
          yield* Node.untilPulling(second)
          nodes[dies].mirror.child.kill("SIGKILL")
          yield* Fiber.join(pulling)
          const resumed = upstream.state.requests.filter((request) => /\/blobs\/\S+ bytes=[1-9][0-9]*-$/.test(request))
          assert.lengthOf(resumed, 1)
          const offset = Number(/bytes=(\d+)-/.exec(resumed[0] ?? "")?.[1])
          const layer = image.objects.at(-1)?.descriptor.size ?? 0
          assert.strictEqual(upstream.state.blobBytes, layer - offset)
        }),
      120_000
    )
  }

  it.live("skopeo reads an image from a node's registry", () =>
    Effect.gen(function*() {
      const { first, upstream } = yield* cluster(2)
      const image = yield* upstream.push({ tag: "v1", layers: 2, layerSize: mebibyte })
      yield* first.pull(image.name)
      const directory = yield* temporary
      // A registry's port cannot stand in a repository's name, so the second name has a registry without one.
      yield* first.containerd.ctr("images", "tag", image.name, "registry.example/other/app:v1")
      for (const [index, name] of ["team/app", "registry.example/other/app"].entries()) {
        const source = `docker://${new URL(first.url).host}/${name}`
        const skopeo = (command: string, ...args: ReadonlyArray<string>) => Command.run("skopeo", [command, ...args])
        const tags = yield* skopeo("list-tags", "--tls-verify=false", source)
        assert.deepStrictEqual(JSON.parse(tags).Tags, ["v1"])
        const inspected = yield* skopeo("inspect", "--tls-verify=false", `${source}:v1`)
        assert.strictEqual(JSON.parse(inspected).Digest, image.objects[0]?.descriptor.digest)
        yield* skopeo("copy", "--src-tls-verify=false", `${source}:v1`, `oci:${directory}/copy-${index}:v1`)
      }
    }), 120_000)

  it.live("SIGTERM lets a running body finish, and ends with code 0 and nothing left", () =>
    Effect.gen(function*() {
      const { first, upstream } = yield* cluster(2)
      const image = yield* upstream.push({ tag: "v1", layers: 1, layerSize: 64 * mebibyte })
      yield* first.pull(image.name)
      const layer = image.objects.at(-1)?.descriptor
      const response = yield* body(`${first.url}/v2/team/app/blobs/${layer?.digest}?ns=${upstream.host}`)
      response.pause()
      first.mirror.child.kill("SIGTERM")
      // A connection that waits to be accepted as the listener closes is reset; later ones are refused.
      const refused = yield* body(`${first.url}/v2/`).pipe(
        Effect.map((answer) => answer.destroy()),
        Effect.match({ onSuccess: () => false, onFailure: ({ message }) => message.includes("ECONNREFUSED") }),
        Effect.repeat({ until: (refused) => refused, schedule: Schedule.spaced("50 millis"), times: 100 })
      )
      assert.isTrue(refused)
      assert.isNull(first.mirror.child.exitCode)
      const received = yield* Effect.promise(async () => {
        const hash = createHash("sha256")
        for await (const chunk of response) hash.update(chunk as Buffer)
        return `sha256:${hash.digest("hex")}`
      })
      assert.strictEqual(received, layer?.digest)
      assert.strictEqual((yield* first.mirror.finished).code, 0)
      const sockets = yield* Command.run("ss", ["-Htlnp"])
      assert.notInclude(sockets, `pid=${first.mirror.child.pid},`)
    }), 120_000)

  it.live("the tests above leave no process, mount, socket or file", () =>
    Effect.gen(function*() {
      const left = yield* leftovers.list
      assert.deepStrictEqual(left, { processes: [], mounts: [], sockets: [], files: [] })
    }))
})
