import { assert, describe, it } from "@effect/vitest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import { eventually, start, type WatchedNode } from "@spegel-ts/testing/node/WatchedNode"
import { Effect, Schedule } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"

const missing = ContainerdDaemon.missingPrerequisite()

/** It is said once, within a minute of the first pull. */
const saysOnce = Effect.fnUntraced(function*(watched: WatchedNode, line: RegExp, reason: string) {
  yield* watched.pull("one")
  yield* watched.pull("two")
  yield* eventually(60, () => assert.lengthOf(watched.said("WARN"), 1))
  assert.match(watched.said("WARN")[0] ?? "", line)
  assert.deepStrictEqual(yield* watched.faults, [reason])
  assert.match(yield* watched.page, new RegExp(`class="no">${line.source}`))
})

/** containerd starts again with other settings. */
const reconfigure = ({ node }: WatchedNode, change: (text: string) => string) =>
  Effect.gen(function*() {
    const file = join(node.containerd.directory, "config.toml")
    writeFileSync(file, change(readFileSync(file, "utf8")))
    yield* node.containerd.restart
  })

const list = (certs: string) => `${certs}:/etc/docker/certs.d`
const note = missing === undefined ? "" : ` (skipped: ${missing})`

describe.skipIf(missing !== undefined)(`a mirror that containerd does not use${note}`, {
  timeout: 240_000,
  concurrent: true
}, () => {
  for (const version of ContainerdPackages.versions) {
    it.live(`says so where config_path is unset, and when it is mended, with containerd ${version}`, () =>
      Effect.gen(function*() {
        const watched = yield* start({ version, configPath: () => "" })
        const reason = version === "2.1" ? "NotAsked" : "ConfigPathUnset"
        yield* saysOnce(watched, /containerd does not use this mirror: .*set config_path/, reason)
        const { certs } = watched.node
        yield* reconfigure(watched, (text) => text.replace(`config_path = ""`, `config_path = "${certs}"`))
        yield* Effect.retry(watched.pull("three"), { schedule: Schedule.spaced("250 millis"), times: 40 })
        yield* eventually(60, () => assert.lengthOf(watched.said("INFO").filter((line) => line.includes(`mended`)), 1))
        assert.deepStrictEqual(yield* watched.faults, [])
        assert.notInclude(yield* watched.page, `class="no">containerd`)
        assert.lengthOf(watched.said("WARN").filter((line) => line.includes("mirror")), 1)
      }))

    it.live(`says so where layers are discarded, with containerd ${version}`, () =>
      Effect.gen(function*() {
        const watched = yield* start({ version, discardUnpackedLayers: true })
        yield* saysOnce(watched, /containerd discards layers once they are unpacked/, "LayersDiscarded")
      }))
  }

  it.live("says so where config_path has several directories, of which containerd 2.1 reads none", () =>
    Effect.gen(function*() {
      const watched = yield* start({ version: "2.1", configPath: list })
      yield* saysOnce(watched, /containerd does not use this mirror: .*no second directory/, "NotAsked")
    }))

  for (const version of ["1.6", "1.7"] as const) {
    it.live(`says that an upgrade of containerd ${version} would ignore several directories`, () =>
      Effect.gen(function*() {
        const watched = yield* start({ version, configPath: list })
        yield* saysOnce(
          watched,
          /containerd 2\.1 and later would not use this mirror: config_path/,
          "UpgradeWillIgnoreConfigPath"
        )
        assert.isAbove(yield* watched.misses, 0, "this version asks the mirror")
      }))
  }

  it.live("says before the first pull what containerd's configuration file tells", () =>
    Effect.gen(function*() {
      const watched = yield* start({ version: "2.1", configPath: list, discardUnpackedLayers: true, showsConfig: true })
      yield* eventually(10, () => assert.lengthOf(watched.said("WARN"), 1))
      assert.deepStrictEqual(yield* watched.faults, ["LayersDiscarded"])
      yield* watched.pull("one")
      assert.isAbove(yield* watched.misses, 0, "it reads several directories while it discards layers")
      const unset = yield* start({ version: "2.1", configPath: list, showsConfig: true })
      yield* eventually(10, () => assert.lengthOf(unset.said("WARN"), 1))
      assert.deepStrictEqual(yield* unset.faults, ["ConfigPathIsList"])
    }))
})
