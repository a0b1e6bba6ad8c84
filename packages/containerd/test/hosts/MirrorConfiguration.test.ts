import { assert, describe, it } from "@effect/vitest"
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import * as StartingStates from "@spegel-ts/testing/containerd/StartingStates"
import { Effect, Option, Redacted } from "effect"
import { mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parse } from "smol-toml"
import { options, temporary, url } from "./HostsFixture.ts"
import * as PatchedFileSystem from "./PatchedFileSystem.ts"

const basicAuth = Option.some({ username: "user", password: Redacted.make("secret") })

const put = (directory: string, name: string, text = "", mode = 0o644) => {
  mkdirSync(join(directory, name), { recursive: true })
  writeFileSync(join(directory, name, "hosts.toml"), text, { mode })
}
const read = (directory: string, name: string) => readFileSync(join(directory, name, "hosts.toml"), "utf8")
const hostsOf = (directory: string, name: string) => Object.keys((parse(read(directory, name))["host"] ?? {}) as object)
const paths = Effect.map((changes: ReadonlyArray<MirrorConfiguration.Change>) => changes.map(({ path }) => path))
const modeOf = (directory: string, name: string) => statSync(join(directory, name, "hosts.toml")).mode & 0o777

describe("MirrorConfiguration", () => {
  it.effect("writes _default for all registries, without a server", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      yield* MirrorConfiguration.write(options(directory))
      assert.deepStrictEqual(Object.keys(parse(read(directory, "_default"))), ["host"])
      assert.deepStrictEqual(readdirSync(directory), ["_default"])
    }))

  it.effect("reaches registries whose own directory hides _default", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      put(directory, "docker.io", `[host."https://registry-1.docker.io"]\n[host."https://cache.example"]\n`)
      mkdirSync(join(directory, "ghcr.io"))
      yield* MirrorConfiguration.write(options(directory))
      assert.deepStrictEqual(hostsOf(directory, "docker.io"), [url, "https://registry-1.docker.io"])
      assert.deepStrictEqual(hostsOf(directory, "ghcr.io"), [url])
      yield* MirrorConfiguration.write({ ...options(directory), prependExisting: true })
      assert.deepStrictEqual(hostsOf(directory, "docker.io"), [
        url,
        "https://registry-1.docker.io",
        "https://cache.example"
      ])
    }))

  it.effect("writes one directory a registry, as containerd looks for it, and keeps the scheme", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const mirroredRegistries = ["docker.io", "https://ghcr.io", "http://registry.example:5000"]
      yield* MirrorConfiguration.write({ ...options(directory), mirroredRegistries })
      const names = ["docker.io", "ghcr.io", "registry.example_5000_"]
      // containerd knows by itself how to reach the others.
      assert.deepStrictEqual(names.map((name) => parse(read(directory, name))["server"]), [
        undefined,
        undefined,
        "http://registry.example:5000"
      ])
    }))

  it.effect("writes to the directory that containerd reads where both spellings exist", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      mkdirSync(join(directory, "registry.example:5000"))
      const mirrored = { ...options(directory), mirroredRegistries: ["http://registry.example:5000"] }
      assert.deepStrictEqual(yield* paths(MirrorConfiguration.write(mirrored)), [
        join(directory, "registry.example:5000", "hosts.toml")
      ])
      mkdirSync(join(directory, "registry.example_5000_"))
      assert.deepStrictEqual(yield* MirrorConfiguration.write(mirrored), [
        MirrorConfiguration.Change.Removed({ path: join(directory, "registry.example:5000", "hosts.toml") }),
        MirrorConfiguration.Change.Wrote({
          path: join(directory, "registry.example_5000_", "hosts.toml"),
          removedHosts: [],
          refused: []
        })
      ])
      assert.deepStrictEqual(readdirSync(join(directory, "registry.example:5000")), [])
    }))

  it.effect("leaves registries that are mirrored no more", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const mirrored = (...mirroredRegistries: ReadonlyArray<string>) =>
        MirrorConfiguration.write({ ...options(directory), mirroredRegistries })
      yield* mirrored("docker.io", "ghcr.io")
      yield* mirrored("ghcr.io")
      assert.deepStrictEqual(readdirSync(directory), ["ghcr.io"])
    }))

  it.effect("goes on with certificates that containerd took by their names", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      mkdirSync(join(directory, "docker.io"))
      for (const name of ["b.crt", "a.crt", "c.cert", "c.key", "d.cert"]) {
        writeFileSync(join(directory, "docker.io", name), "x")
      }
      yield* MirrorConfiguration.write(options(directory))
      const toml = parse(read(directory, "docker.io"))
      assert.deepStrictEqual(toml["ca"], ["a.crt", "b.crt"])
      // Without a key of its own the file has it too.
      assert.deepStrictEqual(toml["client"], [["c.cert", "c.key"], ["d.cert", "d.cert"]])
    }))

  it.effect("lets root alone read a password, until it is gone", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      put(directory, "docker.io", "", 0o644)
      put(directory, "ghcr.io", "", 0o400)
      const names = ["_default", "docker.io", "ghcr.io"]
      const modes = () => names.map((name) => modeOf(directory, name))
      yield* MirrorConfiguration.write({ ...options(directory), basicAuth })
      assert.include(read(directory, "docker.io"), Buffer.from("user:secret").toString("base64"))
      assert.deepStrictEqual(modes(), [0o600, 0o600, 0o400])
      yield* MirrorConfiguration.write(options(directory))
      assert.deepStrictEqual(modes(), [0o644, 0o644, 0o400])
      yield* MirrorConfiguration.write({ ...options(directory), basicAuth })
      yield* MirrorConfiguration.remove(directory)
      assert.deepStrictEqual([modeOf(directory, "docker.io"), modeOf(directory, "ghcr.io")], [0o644, 0o400])
    }))

  it.effect("sends a token in place of a password, which root alone can read, until it is gone", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      put(directory, "docker.io", "", 0o644)
      const token = Redacted.make("v1.key.node.signature")
      yield* MirrorConfiguration.write({ ...options(directory), basicAuth, token })
      const { host } = parse(read(directory, "docker.io")) as { readonly host: Record<string, object> }
      assert.deepInclude(host[url], { header: { authorization: ["Bearer v1.key.node.signature"] } })
      assert.deepStrictEqual(["_default", "docker.io"].map((name) => modeOf(directory, name)), [0o600, 0o600])
      yield* MirrorConfiguration.write(options(directory))
      assert.notInclude(read(directory, "docker.io"), "authorization")
      assert.strictEqual(modeOf(directory, "docker.io"), 0o644)
    }))

  it.effect("keeps what others add while it is there", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      put(directory, "ghcr.io", `server = "https://ghcr.io"\n`)
      yield* MirrorConfiguration.write(options(directory))
      const added = `[host."https://added.example"]\n`
      for (const name of ["_default", "ghcr.io"]) put(directory, name, read(directory, name) + added)
      yield* MirrorConfiguration.write({ ...options(directory), prependExisting: true })
      assert.deepStrictEqual(hostsOf(directory, "ghcr.io"), [url, "https://added.example"])
      yield* MirrorConfiguration.remove(directory)
      assert.strictEqual(read(directory, "_default"), added)
      assert.strictEqual(read(directory, "ghcr.io"), `server = "https://ghcr.io"\n${added}`)
    }))

  it.effect("does not take somebody else's _backup for Go Spegel's", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      put(directory, "_backup/docker.io", "x")
      put(directory, "docker.io", `[host."https://cache.example"]\n`)
      const before = StartingStates.snapshot(directory)
      yield* MirrorConfiguration.write(options(directory))
      assert.strictEqual(read(directory, "_backup/docker.io"), "x")
      yield* MirrorConfiguration.remove(directory)
      assert.deepStrictEqual(StartingStates.snapshot(directory), before)
    }))

  it.effect.each([
    `server = 'https://docker.io'\n\n[host]\n[host.'${url}']\ncapabilities = ['pull', 'resolve']\n`,
    `[host]\n\n[host.'${url}']\n  capabilities = ['pull']\n`,
    `[host.'${url}']\ncapabilities = ['pull', 'resolve']\ndial_timeout = '200ms'\n[host.'${url}'.header]\nAuthorization = 'Basic x'`
  ])("takes over from each version of Go Spegel: %s", (text) =>
    Effect.gen(function*() {
      const directory = yield* temporary
      put(directory, "_default", text)
      put(directory, "docker.io", text)
      put(directory, "_backup/docker.io", "mine")
      yield* MirrorConfiguration.remove(directory)
      assert.deepStrictEqual(readdirSync(directory), ["docker.io"])
      assert.strictEqual(read(directory, "docker.io"), "mine")
    }))

  it.effect("takes over from Go Spegel without losing what came later, and says where both are there", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      put(directory, "_backup/docker.io", "mine")
      put(directory, "docker.io", `server = 'https://registry-1.docker.io'\n\n[host.'${url}']\ncapabilities = ['pull']`)
      writeFileSync(join(directory, "docker.io", "later.crt"), "later")
      yield* MirrorConfiguration.remove(directory)
      assert.deepStrictEqual(readdirSync(join(directory, "docker.io")), ["hosts.toml", "later.crt"])
      assert.strictEqual(read(directory, "docker.io"), "mine")

      put(directory, "_backup/docker.io", "mine")
      put(directory, "_default", `[host.'${url}']\ncapabilities = ['pull']`)
      const error = yield* Effect.flip(MirrorConfiguration.remove(directory))
      assert.include(error.message, join(directory, "docker.io", "hosts.toml"))
      assert.strictEqual(read(directory, "docker.io"), "mine")
    }))

  it.effect("takes the place of an entry of its own that somebody wrote", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const text = `[host."${url}"]\ncapabilities = ["pull"]\n[host."https://cache.example"]\n`
      put(directory, "_default", text)
      const changes = yield* MirrorConfiguration.write({ ...options(directory), prependExisting: true })
      assert.deepStrictEqual(changes.map((change) => change._tag === "Wrote" && change.removedHosts), [[url]])
      assert.deepStrictEqual(hostsOf(directory, "_default"), [url, "https://cache.example"])
      yield* MirrorConfiguration.remove(directory)
      assert.strictEqual(read(directory, "_default"), text)
    }))

  it.effect("fails where nothing could be configured, and names the file and why", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      put(directory, "_default", "# spegel-ts: begin\n")
      const error = yield* Effect.flip(MirrorConfiguration.write(options(directory)))
      assert.include(error.message, join(directory, "_default", "hosts.toml"))
      assert.include(error.message, "changed by hand")
    }))

  it.effect("tells what it did to each file", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      put(directory, "a.example", `[host."https://cache.example"]\n`)
      put(directory, "b.example", `skip_verify = 1\n[host]\n`)
      put(directory, "c.example", `server = "https://cache.example"\n`)
      put(directory, "d.example", `host = 5\n`)
      const mirrored = (...mirroredRegistries: ReadonlyArray<string>) =>
        Effect.map(
          MirrorConfiguration.write({ ...options(directory), mirroredRegistries }),
          (changes) => changes.map(({ path, ...change }) => ({ ...change, path: path.split("/").at(-2) }))
        )
      const all = ["a.example", "b.example", "c.example", "d.example"]
      const wrote = yield* mirrored(...all)
      assert.deepStrictEqual(wrote, [
        { _tag: "Wrote", path: "a.example", removedHosts: ["https://cache.example"], refused: [] },
        {
          _tag: "Wrote",
          path: "b.example",
          removedHosts: [],
          refused: ["skip_verify has a value that containerd refuses"]
        },
        {
          _tag: "Wrote",
          path: "c.example",
          removedHosts: [],
          refused: ["there is no table [host] (containerd 1.x)"]
        },
        {
          _tag: "Wrote",
          path: "d.example",
          removedHosts: [],
          refused: ["host is not a table (containerd 2.0, 2.1, 2.2)", "there is no table [host] (containerd 1.x)"]
        }
      ])
      const again = yield* mirrored("b.example", "c.example", "d.example")
      assert.deepStrictEqual(again.map(({ _tag, path }) => [_tag, path]), [
        ["Removed", "a.example"],
        ["Unchanged", "b.example"],
        ["Unchanged", "c.example"],
        ["Unchanged", "d.example"]
      ])
    }))

  it.effect("says nothing of http to a registry on localhost, which containerd finds by itself", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const registries = ["localhost:5000", "https://127.0.0.1:5000", "[::1]:5000", "localhost", "ghcr.io"]
      const write = (tagResolution: "mirror" | "upstream-first") =>
        MirrorConfiguration.write({ ...options(directory), mirroredRegistries: registries, tagResolution })
      yield* write("mirror")
      const names = ["localhost_5000_", "127.0.0.1_5000_", "[::1]_5000_", "localhost", "ghcr.io"]
      for (const name of names) assert.deepStrictEqual(Object.keys(parse(read(directory, name))), ["host"], name)
      // With this option containerd 1.7 and later try https first, as they do by themselves.
      yield* write("upstream-first")
      assert.include(read(directory, "localhost_5000_"), `[host."http://localhost:5000"]\n`)
      assert.include(read(directory, "localhost_5000_"), "skip_verify = true\n")
      assert.include(read(directory, "ghcr.io"), `[host."https://ghcr.io"]\n`)
    }))

  it.effect("does not replace a file that somebody makes in the meantime", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      mkdirSync(join(directory, "docker.io"))
      let isMade = false
      const inTheMeantime: PatchedFileSystem.Around = (name, args, perform) => {
        if (name === "link" && !isMade) {
          isMade = true
          put(directory, "docker.io", "server = \"https://theirs.example\"")
        }
        return perform(args)
      }
      yield* Effect.promise(() =>
        PatchedFileSystem.run(inTheMeantime, () => Effect.runPromise(MirrorConfiguration.write(options(directory))))
      )
      assert.deepStrictEqual(hostsOf(directory, "docker.io"), [url, "https://theirs.example"])
      yield* MirrorConfiguration.remove(directory)
      assert.strictEqual(read(directory, "docker.io"), "server = \"https://theirs.example\"")
    }))

  it.effect("does what it can where one file is in the way", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const damaged = "# spegel-ts: begin\n"
      put(directory, "a.example", damaged)
      put(directory, "b.example", `[host."https://cache.example"]\n`)
      const written = yield* paths(MirrorConfiguration.write(options(directory)))
      assert.deepStrictEqual(written, ["_default", "b.example"].map((name) => join(directory, name, "hosts.toml")))
      assert.strictEqual(read(directory, "a.example"), damaged)

      const error = yield* Effect.flip(MirrorConfiguration.remove(directory))
      assert.include(error.message, join(directory, "a.example", "hosts.toml"))
      assert.strictEqual(read(directory, "b.example"), `[host."https://cache.example"]\n`)
      assert.deepStrictEqual(readdirSync(directory), ["a.example", "b.example"])
    }))

  it.effect("does not name one server in a file that several registries share", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      put(directory, "docker.io", `[host."https://cache.example"]\n`)
      symlinkSync("docker.io", join(directory, "ghcr.io"))
      yield* MirrorConfiguration.write({ ...options(directory), mirroredRegistries: ["ghcr.io"] })
      assert.deepStrictEqual(Object.keys(parse(read(directory, "docker.io"))), ["host"])
      symlinkSync("nowhere", join(directory, "_default"))
      const changed = yield* paths(MirrorConfiguration.write(options(directory)))
      assert.deepStrictEqual(changed, ["docker.io", "ghcr.io"].map((name) => join(directory, name, "hosts.toml")))
      assert.strictEqual(readlinkSync(join(directory, "_default")), "nowhere")
    }))

  it.effect("never prints a password", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(MirrorConfiguration.write({ ...options("/dev/null/certs.d"), basicAuth }))
      assert.notInclude(error.message, "secret")
      assert.notInclude(error.message, Buffer.from("user:secret").toString("base64"))
      assert.include(error.message, "/dev/null/certs.d")
    }))
})
