import { assert, describe, it } from "@effect/vitest"
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Reference from "@spegel-ts/oci/Reference"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as CriClient from "@spegel-ts/testing/containerd/CriClient"
import * as StartingStates from "@spegel-ts/testing/containerd/StartingStates"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Option, Result, Schedule } from "effect"
import { readdirSync, rmSync } from "node:fs"
import { join } from "node:path"

/** Each text is pulled through by `StartingStates.e2e.test.ts`. */
const shapes = StartingStates.shapes.filter(({ isMirrored }) => isMirrored !== false)

const missing = ContainerdDaemon.missingPrerequisite("docker-registry")

/** A mirror with an image for each starting state, all different, tagged by the state's number. */
const mirrorOf = Effect.fnUntraced(function*(upstream: string) {
  const root = yield* temporary
  const data = yield* temporary
  const writer = yield* OciLayoutWriter.make({ root })
  for (const index of shapes.keys()) {
    const reference = Result.getOrThrow(Reference.parse(`${upstream}/team/app:${index}`))
    yield* RandomImage.write({ writer, reference, layerSizes: [4096 + index] })
  }
  const ports = yield* MirrorPorts.free
  const url = `http://127.0.0.2:${ports.registry}`
  yield* SpegelProcess.start([
    "registry",
    `--store=oci-layout:${root}`,
    `--data-dir=${data}`,
    ...MirrorPorts.flags("127.0.0.2", ports),
    "--bootstrap-kind=static",
    `--static-bootstrap-peers=127.0.0.2:${ports.router}`
  ])
  yield* SpegelProcess.untilReady(url)
  return url
})

const digestOf = ({ objects }: RandomImage.RandomImage): string =>
  objects.find(({ kind }) => kind === "manifest")?.descriptor.digest ?? "no manifest"

describe.skipIf(missing !== undefined).each(ContainerdPackages.versions)(
  `configuration of containerd %s${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  (version) => {
    it.live("leads pulls to the mirror, and leaves no trace, from every state of the file system", () =>
      Effect.gen(function*() {
        const programs = yield* ContainerdPackages.fetch(version)
        const upstream = yield* Upstream.start
        const url = yield* mirrorOf(upstream.host)
        const directory = yield* temporary
        const configPath = join(directory, "certs.d")
        const daemon = yield* ContainerdDaemon.start({ configPath, programs })

        for (const [index, state] of shapes.entries()) {
          for (const name of readdirSync(directory)) rmSync(join(directory, name), { recursive: true })
          state.make(directory, upstream.host)
          const before = StartingStates.snapshot(directory)
          state.before?.(directory, upstream.host)
          const where = `${state.name}, containerd ${version}`

          yield* MirrorConfiguration.write({
            configPath,
            mirroredRegistries: state.only === true ? [`http://${upstream.host}`] : [],
            mirrorTargets: [url],
            tagResolution: "mirror",
            // Each state in either way, in turn with the versions.
            prependExisting: (index + ContainerdPackages.versions.indexOf(version)) % 2 === 0,
            basicAuth: Option.none()
          })
          yield* CriClient.pullImage(daemon.socket, `${upstream.host}/team/app:${index}`).pipe(
            Effect.tapError(({ message }) => Effect.logError(`${where}: ${message}`))
          )
          assert.deepStrictEqual(upstream.state.requests, [], `asked of upstream from ${where}`)
          yield* MirrorConfiguration.remove(configPath)
          assert.deepStrictEqual(StartingStates.snapshot(directory), before, where)
        }
      }))

    it.live("takes tags fresh from upstream, blobs from peers, and tags from peers in an outage", () =>
      Effect.gen(function*() {
        const programs = yield* ContainerdPackages.fetch(version)
        const upstream = yield* Upstream.start
        const ports = yield* MirrorPorts.free
        const options = {
          programs,
          // A busy machine may take longer than the default to find a peer; the layer then comes from upstream.
          registry: ["--mirror-resolve-timeout=5s"],
          configuration: ["--tag-resolution=upstream-first"]
        }
        const first = yield* Node.start(1, ports, upstream.host, options)
        const second = yield* Node.start(2, ports, upstream.host, options)
        const name = `${upstream.host}/team/app:moving`
        const pull = Effect.fnUntraced(function*(node: Node.Node) {
          yield* node.pullByCri(name)
          return yield* node.containerd.ctr("images", "ls", `name==${name}`)
        })

        const old = yield* upstream.push({ tag: "moving", layers: 1, layerSize: 4096 })
        for (const node of [first, second]) assert.include(yield* pull(node), digestOf(old))
        const moved = yield* upstream.push({ tag: "moving", layers: 2, layerSize: 8192 })
        const digest = digestOf(moved)
        assert.include(yield* pull(first), digest)

        // The second node's peer still says that it has the tag's old image.
        yield* Effect.forEach(moved.objects, ({ descriptor, kind }) =>
          Effect.tryPromise(() =>
            fetch(
              `${second.url}/v2/team/app/${
                kind === "manifest" ? "manifests" : "blobs"
              }/${descriptor.digest}?ns=${upstream.host}`,
              { method: "HEAD" }
            )
          ).pipe(
            Effect.filterOrFail((response) => response.ok, () => "not found yet" as const),
            Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 100 })
          ))
        upstream.state.requests.length = 0
        assert.include(yield* pull(second), digest)
        assert.deepStrictEqual(upstream.state.requests, [`HEAD /v2/team/app/manifests/moving `])

        upstream.state.down = true
        yield* second.remove(name)
        assert.include(yield* pull(second), digest)
      }))

    it.live("warns of a containerd that will not ask the mirror, and is right", () =>
      Effect.gen(function*() {
        const programs = yield* ContainerdPackages.fetch(version)
        const upstream = yield* Upstream.start
        const url = yield* mirrorOf(upstream.host)
        const directory = yield* temporary
        const certs = join(directory, "certs.d")
        const daemon = yield* ContainerdDaemon.start({ configPath: `${certs}:/etc/docker/certs.d`, programs })
        const { code, stderr } = yield* SpegelProcess.run([
          "configuration",
          `--containerd-registry-config-path=${certs}`,
          `--mirrored-registries=http://${upstream.host}`,
          `--mirror-targets=${url}`,
          `--containerd-config=${join(daemon.directory, "config.toml")}`,
          `--containerd-sock=${daemon.socket}`
        ])
        assert.strictEqual(code, 0)
        yield* CriClient.pullImage(daemon.socket, `${upstream.host}/team/app:0`).pipe(Effect.ignore)
        const isAsked = upstream.state.requests.length === 0
        assert.strictEqual(stderr.includes("containerd does not use this mirror"), !isAsked, stderr)
        assert.strictEqual(isAsked, version !== "2.1")
      }))
  }
)
