import { assert, describe, it } from "@effect/vitest"
import * as AppliedHosts from "@spegel-ts/containerd/AppliedHosts"
import { Effect } from "effect"
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { temporary } from "./HostsFixture.ts"

const registry = "registry.example"
const hostsToml = `[host."http://127.0.0.1:5000"]\n  capabilities = ["pull"]\n`

/** What applies to the registry where the config path holds these files. `prepare` gives the config path. */
const applied = Effect.fnUntraced(function*(
  files: Readonly<Record<string, string>>,
  prepare: (directory: string) => string = (directory) => directory
) {
  const directory = yield* temporary
  for (const [name, text] of Object.entries(files)) {
    const path = join(directory, name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, text)
  }
  return yield* AppliedHosts.find({ configPath: prepare(directory), containerd: "2.1.0", registry })
})

const urlsOf = (found: AppliedHosts.AppliedHosts) =>
  found._tag === "Hosts" ? found.hosts.map(({ url }) => url) : found._tag

describe("AppliedHosts", () => {
  it.live("finds the registry's own file, else the default one", () =>
    Effect.gen(function*() {
      const own = `[host."http://own:1"]\n`
      const both = yield* applied({ [`${registry}/hosts.toml`]: own, "_default/hosts.toml": hostsToml })
      assert.deepStrictEqual(urlsOf(both), ["http://own:1"])
      assert.deepStrictEqual(urlsOf(yield* applied({ "_default/hosts.toml": hostsToml })), ["http://127.0.0.1:5000"])
    }))

  it.live("follows links, as containerd does: of the config path, of a directory, of a file", () =>
    Effect.gen(function*() {
      const file = { "real/_default/hosts.toml": hostsToml }
      const links: ReadonlyArray<(directory: string) => string> = [
        (directory) => {
          symlinkSync(join(directory, "real"), join(directory, "certs.d"))
          return join(directory, "certs.d")
        },
        (directory) => {
          mkdirSync(join(directory, "certs.d"))
          symlinkSync(join(directory, "real/_default"), join(directory, "certs.d", registry))
          return join(directory, "certs.d")
        },
        (directory) => {
          mkdirSync(join(directory, "certs.d", registry), { recursive: true })
          symlinkSync(join(directory, "real/_default/hosts.toml"), join(directory, "certs.d", registry, "hosts.toml"))
          return join(directory, "certs.d")
        }
      ]
      for (const link of links) assert.deepStrictEqual(urlsOf(yield* applied(file, link)), ["http://127.0.0.1:5000"])
    }))

  it.live("names what is missing", () =>
    Effect.gen(function*() {
      assert.strictEqual(urlsOf(yield* applied({}, (directory) => join(directory, "none"))), "NoConfigPath")
      const broken = (directory: string) => {
        symlinkSync(join(directory, "gone"), join(directory, "certs.d"))
        return join(directory, "certs.d")
      }
      assert.strictEqual(urlsOf(yield* applied({}, broken)), "NoConfigPath")
      assert.strictEqual(urlsOf(yield* applied({})), "NoDirectory")
      assert.strictEqual(urlsOf(yield* applied({ [`${registry}/other`]: "" })), "NoFile")
      assert.strictEqual(urlsOf(yield* applied({ "_default/hosts.toml": "= broken" })), "Refused")
    }))
})
