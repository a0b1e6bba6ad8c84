import { assert, describe, it } from "@effect/vitest"
import * as HostsToml from "@spegel-ts/containerd/HostsToml"
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import { Effect, Option, Redacted } from "effect"
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parse } from "smol-toml"

const mirror: HostsToml.MirrorHost = {
  url: "http://127.0.0.1:5000",
  resolveTags: true,
  authorization: Option.none()
}

const foreign = `# kept by the platform team
server = "https://registry.example" # theirs
ca = ["/etc/ca.pem"]
note = """
[host."not a table"]
"""

[host."https://cache.example"] # first
  capabilities = ["pull"]
`

describe("HostsToml", () => {
  it("puts the mirror behind the root keys and in front of other hosts", () => {
    const text = HostsToml.prepend(foreign, [mirror])
    const toml = parse(text)
    assert.strictEqual(toml["server"], "https://registry.example")
    assert.deepStrictEqual(toml["ca"], ["/etc/ca.pem"])
    assert.deepStrictEqual(Object.keys(toml["host"] as object), ["http://127.0.0.1:5000", "https://cache.example"])
  })

  it("leaves what others wrote as it was, to the byte", () => {
    assert.strictEqual(HostsToml.removeBlock(HostsToml.prepend(foreign, [mirror])), foreign)
    assert.strictEqual(HostsToml.removeBlock(foreign), foreign)
  })

  it("does not grow when it is written again", () => {
    const once = HostsToml.prepend(foreign, [mirror])
    assert.strictEqual(HostsToml.prepend(once, [mirror]), once)
  })

  it("does not take a line of an array or a string for a table", () => {
    const text =
      `client = [\n  ["/etc/cert.pem", "/etc/key.pem"]\n]\nnote = '''\n[no table]\n''' # it's """\nserver = "https://registry.example"\n`
    const toml = parse(HostsToml.prepend(`${text}[host."https://cache.example"]\n`, [mirror]))
    assert.deepStrictEqual(toml["client"], [["/etc/cert.pem", "/etc/key.pem"]])
    assert.strictEqual(toml["server"], "https://registry.example")
    assert.deepStrictEqual(Object.keys(toml["host"] as object), ["http://127.0.0.1:5000", "https://cache.example"])
  })

  it("asks for tags only where it may, and carries credentials", () => {
    const text = HostsToml.create(Option.none(), [
      { ...mirror, resolveTags: false, authorization: Option.some(`Basic "x"`) }
    ])
    const host = (parse(text)["host"] as Record<string, Record<string, unknown>>)["http://127.0.0.1:5000"]
    assert.deepStrictEqual(host?.["capabilities"], ["pull"])
    assert.deepStrictEqual(host?.["header"], { authorization: [`Basic "x"`] })
  })
})

describe("MirrorConfiguration", () => {
  const temporary = Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "hosts-"))),
    (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
  )
  const options = (configPath: string): MirrorConfiguration.MirrorConfigurationOptions => ({
    configPath,
    mirroredRegistries: [],
    mirrorTargets: ["http://127.0.0.1:5000"],
    resolveTags: true,
    prependExisting: false,
    basicAuth: Option.none()
  })
  const read = (...path: Array<string>) => Effect.promise(() => readFile(join(...path), "utf8"))

  it.effect("writes _default for all registries, without a server", () =>
    Effect.gen(function*() {
      const configPath = yield* temporary
      yield* MirrorConfiguration.write(options(configPath))
      const toml = parse(yield* read(configPath, "_default", "hosts.toml"))
      assert.deepStrictEqual(Object.keys(toml), ["host"])
      assert.deepStrictEqual(yield* Effect.promise(() => readdir(join(configPath, "_default"))), ["hosts.toml"])
    }))

  it.effect("writes one directory a registry, as containerd looks for it, and keeps the scheme", () =>
    Effect.gen(function*() {
      const configPath = yield* temporary
      yield* MirrorConfiguration.write({
        ...options(configPath),
        mirroredRegistries: ["docker.io", "https://ghcr.io", "http://registry.example:5000"]
      })
      const servers = yield* Effect.forEach(
        ["docker.io", "ghcr.io", "registry.example_5000_"],
        (directory) => Effect.map(read(configPath, directory, "hosts.toml"), (text) => parse(text)["server"])
      )
      assert.deepStrictEqual(servers, [
        "https://registry-1.docker.io",
        "https://ghcr.io",
        "http://registry.example:5000"
      ])
    }))

  it.effect("prepends to what is there, or replaces it and keeps a copy", () =>
    Effect.gen(function*() {
      const configPath = yield* temporary
      yield* Effect.promise(async () => {
        await mkdir(join(configPath, "_default"))
        await writeFile(join(configPath, "_default", "hosts.toml"), foreign)
      })
      yield* MirrorConfiguration.write({ ...options(configPath), prependExisting: true })
      assert.strictEqual(HostsToml.removeBlock(yield* read(configPath, "_default", "hosts.toml")), foreign)

      yield* Effect.promise(() => writeFile(join(configPath, "_default", "hosts.toml"), foreign))
      yield* MirrorConfiguration.write(options(configPath))
      yield* MirrorConfiguration.write(options(configPath))
      assert.notInclude(yield* read(configPath, "_default", "hosts.toml"), "cache.example")
      assert.strictEqual(yield* read(configPath, "_default", "hosts.toml.spegel-backup"), foreign)
    }))

  it.effect("keeps a copy of what it stood in front of before it replaces it", () =>
    Effect.gen(function*() {
      const configPath = yield* temporary
      yield* Effect.promise(async () => {
        await mkdir(join(configPath, "registry.example"))
        await writeFile(join(configPath, "registry.example", "hosts.toml"), foreign)
      })
      const mirrored = { ...options(configPath), mirroredRegistries: ["https://registry.example"] }
      yield* MirrorConfiguration.write({ ...mirrored, prependExisting: true })
      yield* MirrorConfiguration.write(mirrored)
      yield* MirrorConfiguration.write({ ...mirrored, mirroredRegistries: ["http://registry.example"] })
      assert.strictEqual(yield* read(configPath, "registry.example", "hosts.toml.spegel-backup"), foreign)
    }))

  it.effect("writes to the directory that containerd reads where both spellings exist", () =>
    Effect.gen(function*() {
      const configPath = yield* temporary
      yield* Effect.promise(async () => {
        await mkdir(join(configPath, "registry.example:5000"))
      })
      const mirrored = { ...options(configPath), mirroredRegistries: ["http://registry.example:5000"] }
      assert.deepStrictEqual(yield* MirrorConfiguration.write(mirrored), [
        join(configPath, "registry.example:5000", "hosts.toml")
      ])
      yield* Effect.promise(() => mkdir(join(configPath, "registry.example_5000_")))
      assert.deepStrictEqual(yield* MirrorConfiguration.write(mirrored), [
        join(configPath, "registry.example_5000_", "hosts.toml")
      ])
    }))

  it.effect("does not write a file with a host twice, which containerd would ignore", () =>
    Effect.gen(function*() {
      const configPath = yield* temporary
      const path = join(configPath, "_default", "hosts.toml")
      const text = `[host."http://127.0.0.1:5000"]\ncapabilities = ["pull"]\n`
      yield* Effect.promise(async () => {
        await mkdir(join(configPath, "_default"))
        await writeFile(path, text)
      })
      const error = yield* Effect.flip(MirrorConfiguration.write({ ...options(configPath), prependExisting: true }))
      assert.include(error.message, "http://127.0.0.1:5000")
      assert.strictEqual(yield* read(path), text)
    }))

  it.effect("names a file that is no TOML, and leaves it alone", () =>
    Effect.gen(function*() {
      const configPath = yield* temporary
      const path = join(configPath, "_default", "hosts.toml")
      yield* Effect.promise(async () => {
        await mkdir(join(configPath, "_default"))
        await writeFile(path, "server = ")
      })
      const error = yield* Effect.flip(
        MirrorConfiguration.write({ ...options(configPath), prependExisting: true })
      )
      assert.include(error.message, path)
      assert.strictEqual(yield* read(path), "server = ")
    }))

  it.effect("never prints a password", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(MirrorConfiguration.write({
        ...options("/dev/null/certs.d"),
        basicAuth: Option.some({ username: "user", password: Redacted.make("secret") })
      }))
      assert.notInclude(error.message, "secret")
      assert.include(error.message, "/dev/null/certs.d")
    }))
})
