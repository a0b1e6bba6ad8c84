import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as ContainerdDaemon from "../../../../packages/containerd/test/ContainerdDaemon.ts"
import * as ContainerdPackages from "../../../../packages/containerd/test/ContainerdPackages.ts"
import * as CriClient from "../../../../packages/containerd/test/CriClient.ts"
import * as FakeRegistry from "../../../../packages/containerd/test/FakeRegistry.ts"
import * as SpegelProcess from "./SpegelProcess.ts"
import { freePort, temporary } from "./Upstream.ts"

const missing = ContainerdDaemon.missingPrerequisite()

interface Options {
  readonly version: ContainerdPackages.Version
  /** containerd's `config_path`, by the directory of the mirror's files. */
  readonly configPath: (certs: string) => string
  readonly discardUnpackedLayers?: boolean
}

/** A containerd, a registry, and a mirror that is configured for it, whether containerd reads that or not. */
const start = Effect.fnUntraced(function*({ configPath, version, ...options }: Options) {
  const directory = yield* temporary
  const certs = join(directory, "certs.d")
  const upstream = yield* FakeRegistry.start({ address: "127.0.0.100" })
  const containerd = yield* ContainerdDaemon.start({
    programs: yield* ContainerdPackages.fetch(version),
    configPath: configPath(certs),
    ...options
  })
  const [registry, router, metrics] = yield* Effect.all([freePort, freePort, freePort])
  const url = `http://127.0.0.2:${registry}`
  const configured = yield* SpegelProcess.run([
    "configuration",
    `--containerd-registry-config-path=${certs}`,
    `--mirrored-registries=http://${upstream.host}`,
    `--mirror-targets=${url}`
  ])
  assert.strictEqual(configured.code, 0, configured.stderr)
  const mirror = yield* SpegelProcess.start([
    "registry",
    `--containerd-sock=${containerd.socket}`,
    `--containerd-content-path=${containerd.contentPath}`,
    `--containerd-registry-config-path=${certs}`,
    `--data-dir=${join(directory, "data")}`,
    `--registry-addr=127.0.0.2:${registry}`,
    `--router-addr=127.0.0.2:${router}`,
    `--metrics-addr=127.0.0.2:${metrics}`,
    "--bootstrap-kind=static",
    `--static-bootstrap-peers=127.0.0.2:${router}`
  ])
  yield* SpegelProcess.untilReady(url)
  const get = (path: string) =>
    Effect.promise(() => fetch(`http://127.0.0.2:${metrics}${path}`).then((response) => response.text()))

  return {
    containerd,
    upstream,
    certs,
    image: (tag: string) => `${upstream.host}/team/app:${tag}`,
    pull: (tag: string) => CriClient.pullImage(containerd.socket, `${upstream.host}/team/app:${tag}`),
    page: get("/debug/web/"),
    /** Reasons of the metric that are 1. */
    faults: Effect.map(get("/metrics"), (text) => {
      assert.include(text, `spegel_containerd_fault{reason="NotAsked"}`)
      return [...text.matchAll(/^spegel_containerd_fault\{reason="(\w+)"\} 1$/gm)].map(([, reason = ""]) => reason)
    }),
    /** What the mirror says of containerd, at a level. */
    said: (level: "INFO" | "WARN") =>
      mirror.output.stderr.split("\n").filter((line) => line.includes(level) && /containerd('s)? /.test(line))
  }
})

type Node = Effect.Success<ReturnType<typeof start>>

const eventually = (seconds: number, check: () => void) =>
  Effect.try({ try: check, catch: (error) => error as Error }).pipe(
    Effect.retry({ schedule: Schedule.spaced("250 millis"), times: seconds * 4 })
  )

/** It is said once, within a minute of the first pull. */
const saysOnce = Effect.fnUntraced(function*(node: Node, line: RegExp, reason: string) {
  yield* node.pull("one")
  yield* node.pull("two")
  yield* eventually(60, () => assert.lengthOf(node.said("WARN"), 1))
  assert.match(node.said("WARN")[0] ?? "", line)
  assert.deepStrictEqual(yield* node.faults, [reason])
  assert.match(yield* node.page, new RegExp(`class="no">${line.source}`))
})

/** containerd starts again with other settings. */
const reconfigure = (node: Node, change: (text: string) => string) =>
  Effect.gen(function*() {
    const file = join(node.containerd.directory, "config.toml")
    writeFileSync(file, change(readFileSync(file, "utf8")))
    yield* node.containerd.restart
  })

const note = missing === undefined ? "" : ` (skipped: ${missing})`

describe.skipIf(missing !== undefined)(`a mirror that containerd does not use${note}`, { timeout: 240_000 }, () => {
  for (const version of ContainerdPackages.versions) {
    it.live(`says so where config_path is unset, and when it is mended, with containerd ${version}`, () =>
      Effect.gen(function*() {
        const node = yield* start({ version, configPath: () => "" })
        const reason = version === "2.1" ? "NotAsked" : "ConfigPathUnset"
        yield* saysOnce(node, /containerd does not use this mirror: .*set config_path/, reason)
        yield* reconfigure(node, (text) => text.replace(`config_path = ""`, `config_path = "${node.certs}"`))
        yield* Effect.retry(node.pull("three"), { schedule: Schedule.spaced("250 millis"), times: 40 })
        yield* eventually(
          60,
          () => assert.lengthOf(node.said("INFO").filter((line) => /any more|it asks/.test(line)), 1)
        )
        assert.deepStrictEqual(yield* node.faults, [])
        assert.notInclude(yield* node.page, `class="no">containerd`)
        assert.lengthOf(node.said("WARN").filter((line) => line.includes("mirror")), 1)
      }))

    it.live(`says so where layers are discarded, with containerd ${version}`, () =>
      Effect.gen(function*() {
        const node = yield* start({ version, configPath: (certs) => certs, discardUnpackedLayers: true })
        yield* saysOnce(node, /containerd discards layers once they are unpacked/, "LayersDiscarded")
      }))
  }

  it.live("says so where config_path has several directories, of which containerd 2.1 reads none", () =>
    Effect.gen(function*() {
      const node = yield* start({ version: "2.1", configPath: (certs) => `${certs}:/etc/docker/certs.d` })
      yield* saysOnce(node, /containerd does not use this mirror: .*no second directory/, "NotAsked")
    }))
})
