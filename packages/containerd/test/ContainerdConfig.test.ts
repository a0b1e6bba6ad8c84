import { assert, describe, it } from "@effect/vitest"
import * as ConfigFindings from "@spegel-ts/containerd/ConfigFindings"
import * as ContainerdConfig from "@spegel-ts/containerd/ContainerdConfig"
import { Effect, Option, Result } from "effect"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

const directory = "/etc/containerd/certs.d"
const oldKey = `plugins."io.containerd.grpc.v1.cri".registry`
const newKey = `plugins.'io.containerd.cri.v1.images'.registry`

const findings = (containerd: string, text: string) =>
  ConfigFindings.find(Result.getOrThrow(ContainerdConfig.parse(text)), { containerd, configPath: directory })
    .map(({ _tag }) => _tag)

const version2 = `version = 2\n[${oldKey}]\nconfig_path = "${directory}/"\n`
const version3 = `version = 3\n[${newKey}]\nconfig_path = "${directory}"\n`

describe("ContainerdConfig", () => {
  it("accepts the key of each version of the file", () => {
    assert.deepStrictEqual(findings("1.6.20~ds1", version2), [])
    assert.deepStrictEqual(findings("2.1.9", version2), [])
    assert.deepStrictEqual(findings("v2.1.9", version3), [])
    assert.deepStrictEqual(findings("1.6.20", `[plugins.cri.registry]\nconfig_path = "${directory}"`), [])
    assert.deepStrictEqual(findings("2.1.9", `version = 2\n[${newKey}]\nconfig_path = "${directory}"`), [])
  })

  it("takes what the CRI plugin says of itself", () => {
    const of = (registry: unknown, containerd: unknown = {}) =>
      Option.map(
        ContainerdConfig.ofCriStatus(JSON.stringify({ containerd, registry })),
        (config) => ConfigFindings.find(config, { containerd: "1.7.24", configPath: directory }).map(({ _tag }) => _tag)
      )
    assert.deepStrictEqual(of({ configPath: directory, mirrors: null, configs: null }), Option.some([]))
    assert.deepStrictEqual(
      of({ configPath: `/elsewhere:${directory}` }),
      Option.some(["UpgradeWillIgnoreConfigPath"])
    )
    assert.deepStrictEqual(
      of({ configPath: directory }, { discardUnpackedLayers: true }),
      Option.some(["LayersDiscarded"])
    )
    assert.deepStrictEqual(of({ configPath: directory }, { discardUnpackedLayers: false }), Option.some([]))
    assert.deepStrictEqual(of({ configPath: "", mirrors: null }), Option.some(["ConfigPathUnset"]))
    assert.deepStrictEqual(of({ configPath: "", mirrors: { "docker.io": {} } }), Option.some(["InlineMirrors"]))
    for (const silent of [undefined, null, 7, "text"]) assert.deepStrictEqual(of(silent), Option.none())
    assert.deepStrictEqual(ContainerdConfig.ofCriStatus("no JSON"), Option.none())
  })

  it("finds keys that containerd ignores", () => {
    const oldInThree = `version = 3\n[${oldKey}]\nconfig_path = "${directory}"`
    assert.deepStrictEqual(findings("2.1.9", oldInThree), ["KeyIgnored"])
    assert.deepStrictEqual(findings("2.3.4", oldInThree), [])
    assert.deepStrictEqual(findings("1.7.24", `version = 2\n[${newKey}]\nconfig_path = "${directory}"`), ["KeyIgnored"])
  })

  it("finds a path that is missing, another or a list", () => {
    assert.deepStrictEqual(findings("1.7.24", "version = 2"), ["ConfigPathUnset"])
    assert.deepStrictEqual(findings("2.1.9", "version = 3"), ["ConfigPathUnset"])
    assert.deepStrictEqual(findings("1.7.24", `version = 2\n[${oldKey}]\nconfig_path = "/other"`), [
      "ConfigPathElsewhere"
    ])
    const list = `version = 2\n[${oldKey}]\nconfig_path = "${directory}:/etc/docker/certs.d"`
    assert.deepStrictEqual(findings("1.7.24", list), ["UpgradeWillIgnoreConfigPath"])
    assert.deepStrictEqual(findings("2.1.9", list), ["ConfigPathIsList"])
    const withSetting = (setting: string) =>
      findings("2.1.9", `${list}\n[plugins.'io.containerd.cri.v1.images']\n${setting}`)
    assert.deepStrictEqual(withSetting("use_local_image_pull = true"), [])
    assert.deepStrictEqual(withSetting("max_concurrent_downloads = 5"), [])
    assert.deepStrictEqual(withSetting("max_concurrent_downloads = 3"), ["ConfigPathIsList"])
    assert.deepStrictEqual(withSetting("discard_unpacked_layers = true"), ["LayersDiscarded"])
  })

  it("finds inline mirrors and TLS, and a CRI that is off", () => {
    const mirrors = `[${oldKey}.mirrors."docker.io"]\nendpoint = ["https://mirror.example"]\n`
    assert.deepStrictEqual(findings("1.7.24", `version = 2\n${mirrors}`), ["InlineMirrors"])
    assert.deepStrictEqual(findings("1.7.24", version2 + mirrors), ["InlineConflict"])
    const tls = `[${oldKey}.configs."docker.io".tls]\nca_file = "/ca.pem"\n`
    assert.deepStrictEqual(findings("1.7.24", version2 + tls), ["InlineConflict"])
    assert.deepStrictEqual(findings("2.1.9", version2 + tls), [])
    assert.deepStrictEqual(findings("1.7.24", `disabled_plugins = ["cri"]\n${version2}`), ["CriDisabled"])
  })

  it("finds that layers are discarded, under the key that each version reads", () => {
    const discard = "discard_unpacked_layers = true\n"
    const old = `${version2}[plugins."io.containerd.grpc.v1.cri".containerd]\n${discard}`
    assert.deepStrictEqual(findings("1.6.20", old), ["LayersDiscarded"])
    assert.deepStrictEqual(findings("2.1.9", old), [])
    const current = `${version3}[plugins.'io.containerd.cri.v1.images']\n${discard}`
    assert.deepStrictEqual(findings("2.1.9", current), ["LayersDiscarded"])
    assert.deepStrictEqual(findings("2.1.9", version3), [])
  })

  it("says what to do about what it finds", () => {
    const [finding] = ConfigFindings.find(Result.getOrThrow(ContainerdConfig.parse("version = 2")), {
      containerd: "1.7.24",
      configPath: directory
    })
    assert.isDefined(finding)
    assert.include(finding === undefined ? "" : ConfigFindings.describe(finding), oldKey)
  })

  it.effect("reads imports, and names the file that cannot be read", () =>
    Effect.gen(function*() {
      const root = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(tmpdir(), "config-"))),
        (root) => Effect.promise(() => rm(root, { recursive: true }))
      )
      const path = join(root, "config.toml")
      yield* Effect.promise(async () => {
        await mkdir(join(root, "conf.d"))
        await writeFile(path, `version = 2\nimports = ["conf.d/*.toml", "${path}"]\n[${oldKey}]\nconfig_path = "/a"`)
        await writeFile(join(root, "conf.d", "b.toml"), `version = 2\n[${oldKey}]\nconfig_path = "/b"`)
      })
      const config = yield* ContainerdConfig.read(path)
      assert.deepStrictEqual(config.old.configPath, Option.some("/b"))

      const elsewhere = join(root, "elsewhere.toml")
      yield* Effect.promise(() => writeFile(elsewhere, `imports = ["/not-mounted/*.toml", "no-such-directory/*.toml"]`))
      assert.include((yield* Effect.flip(ContainerdConfig.read(elsewhere))).message, "/not-mounted/*.toml")

      const broken = join(root, "conf.d", "c.toml")
      yield* Effect.promise(() => writeFile(broken, "version = "))
      const error = yield* Effect.flip(ContainerdConfig.read(path))
      assert.include(error.message, broken)
    }))
})
