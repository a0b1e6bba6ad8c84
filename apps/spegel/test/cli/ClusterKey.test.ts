import { assert, describe, it } from "@effect/vitest"
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import { generate, KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import * as StartingStates from "@spegel-ts/testing/containerd/StartingStates"
import * as InProcess from "@spegel-ts/testing/node/InProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Result } from "effect"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { hostname } from "node:os"
import { join } from "node:path"

const modeOf = (path: string) => statSync(path).mode & 0o777

describe("spegel cluster-key generate", () => {
  const to = (path: string) => InProcess.run(["cluster-key", "generate", "--output", path])

  it.effect("prints a line that is a key, another each time", () =>
    Effect.gen(function*() {
      const runs = yield* Effect.all([1, 2].map(() => InProcess.run(["cluster-key", "generate"])))
      const [first = "", second = ""] = runs.map(({ stdout }) => stdout)
      assert.notInclude(first, "\n")
      assert.isFalse(ringOf(first).equals(ringOf(second)))
    }))

  it.live("writes a file that its owner alone can read, and says nothing of the key", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const path = join(directory, "key")
      const { stdout, succeeded } = yield* to(path)
      assert.isTrue(succeeded)
      assert.strictEqual(stdout, `wrote ${path}`)
      assert.strictEqual(modeOf(path), 0o600)
      assert.isTrue(Result.isSuccess(KeyRing.parse(readFileSync(path, "utf8"))))
      assert.deepStrictEqual(readdirSync(directory), ["key"])
    }))

  it.live("leaves a file with a key as it is, even if runs begin at the same time", () =>
    Effect.gen(function*() {
      const path = join(yield* temporary, "key")
      const runs = yield* Effect.all(Array.from({ length: 8 }, () => to(path)), { concurrency: "unbounded" })
      assert.deepStrictEqual(runs.map(({ succeeded }) => succeeded), runs.map(() => true))
      assert.lengthOf(runs.filter(({ stdout }) => stdout === `wrote ${path}`), 1)
      const [key, mode] = [readFileSync(path, "utf8"), 0o640]
      chmodSync(path, mode)
      assert.strictEqual((yield* to(path)).stdout, `${path} has a cluster key already, which stays`)
      assert.deepStrictEqual([readFileSync(path, "utf8"), modeOf(path)], [key, mode])
    }))

  it.live("does not take the place of anything else, and says what is there", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const text = join(directory, "text")
      writeFileSync(text, "hunter2")
      const link = join(directory, "link")
      symlinkSync(join(directory, "nowhere"), link)
      const before = StartingStates.snapshot(directory)
      for (
        const [path, reason] of [
          [text, "line 1 is not a key"],
          [link, "ENOENT"],
          [directory, "EISDIR"],
          [join(directory, "none", "key"), "ENOENT"],
          [join(text, "key"), "ENOTDIR"]
        ] as const
      ) {
        const { complaints, succeeded } = yield* to(path)
        assert.isFalse(succeeded, path)
        assert.lengthOf(complaints, 1)
        assert.include(complaints[0], `cluster key ${path}: `)
        assert.include(complaints[0], reason)
        assert.notInclude(complaints[0], "hunter2")
      }
      assert.deepStrictEqual(StartingStates.snapshot(directory), before)
    }))
})

describe("--peer-auth", () => {
  // Ends before anything starts, but after these settings were looked at.
  const run = (...args: ReadonlyArray<string>) => InProcess.run(["registry", "--bootstrap-kind=dns", ...args])

  it.effect("needs a key file unless it is off", () =>
    Effect.gen(function*() {
      for (const mode of ["require", "prefer"]) {
        assert.deepStrictEqual((yield* run(`--peer-auth=${mode}`)).complaints, [
          `--peer-auth: ${mode} needs --cluster-key-file`
        ])
      }
      for (
        const args of [[], ["--peer-auth=off"], ["--peer-auth=prefer", "--cluster-key-file=/k"], ["--peer-auth="]]
      ) {
        assert.include((yield* run(...args)).complaints[0], "--dns-bootstrap-domain", args.join(" "))
      }
    }))
})

describe("spegel configuration with a cluster key", () => {
  const start = Effect.map(temporary, (directory) => {
    const certs = join(directory, "certs.d")
    const key = join(directory, "key")
    const hosts = join(certs, "docker.io", "hosts.toml")
    mkdirSync(join(certs, "docker.io"), { recursive: true })
    writeFileSync(hosts, `server = "https://registry-1.docker.io"\n`, { mode: 0o644 })
    writeFileSync(key, `${generate()}\n${generate()}\n`, { mode: 0o600 })
    const before = StartingStates.snapshot(certs)
    const configure = (...args: ReadonlyArray<string>) =>
      InProcess.run([
        "configuration",
        `--containerd-registry-config-path=${certs}`,
        "--mirror-targets=http://127.0.0.1:5000",
        `--basic-auth-dir=${join(directory, "secrets")}`,
        ...args
      ])
    return { directory, certs, key, hosts, before, configure, snapshot: () => StartingStates.snapshot(certs) }
  })
  const tokenIn = (text: string) => /^authorization = \["Bearer ([^"]+)"\]$/m.exec(text)?.[1] ?? ""

  it.live("writes the node's token by the first key, for root alone, and cleanup takes it back", () =>
    Effect.gen(function*() {
      const { before, certs, configure, hosts, key, snapshot } = yield* start
      const finished = yield* configure(`--cluster-key-file=${key}`, "--node-name=node-1")
      assert.deepStrictEqual(finished.complaints, [])
      const ring = ringOf(readFileSync(key, "utf8"))
      for (const path of [hosts, join(certs, "_default", "hosts.toml")]) {
        const token = tokenIn(readFileSync(path, "utf8"))
        assert.deepStrictEqual(ClientToken.verify(ring, token), {
          node: "node-1",
          keyId: ring.current("client").id
        })
        assert.strictEqual(modeOf(path), 0o600)
        assert.notInclude(JSON.stringify(finished), token)
      }
      yield* InProcess.run(["cleanup", `--containerd-registry-config-path=${certs}`])
      assert.deepStrictEqual(snapshot(), before)
    }))

  it.live("goes by the host's name where it is told none, and without a key once there is none", () =>
    Effect.gen(function*() {
      const { configure, hosts, key } = yield* start
      yield* configure(`--cluster-key-file=${key}`)
      const ring = ringOf(readFileSync(key, "utf8"))
      assert.strictEqual(ClientToken.verify(ring, tokenIn(readFileSync(hosts, "utf8")))?.node, hostname())
      yield* configure()
      assert.notInclude(readFileSync(hosts, "utf8"), "authorization")
      assert.strictEqual(modeOf(hosts), 0o644)
    }))

  it.live("sends the token and not the password where there are both", () =>
    Effect.gen(function*() {
      const { configure, directory, hosts, key } = yield* start
      mkdirSync(join(directory, "secrets"))
      for (const name of ["username", "password"]) writeFileSync(join(directory, "secrets", name), "word")
      yield* configure(`--cluster-key-file=${key}`, "--node-name=node-1")
      const text = readFileSync(hosts, "utf8")
      assert.notEqual(tokenIn(text), "")
      assert.notInclude(text, "Basic")
    }))

  it.live("says what is wrong with a key or a name, and changes nothing", () =>
    Effect.gen(function*() {
      const { before, configure, directory, key, snapshot } = yield* start
      const broken = join(directory, "broken")
      writeFileSync(broken, "hunter2\n")
      const none = join(directory, "none")
      for (
        const [path, node, reason] of [
          [broken, "node-1", `cluster key ${broken}: line 1 is not a key`],
          [none, "node-1", `cluster key ${none}: ENOENT`],
          [key, "node 1", `--node-name: "node 1" is not a name of a node`]
        ] as const
      ) {
        const finished = yield* configure(`--cluster-key-file=${path}`, `--node-name=${node}`)
        assert.isFalse(finished.succeeded)
        assert.lengthOf(finished.complaints, 1)
        assert.include(finished.complaints[0], reason)
        assert.notInclude(JSON.stringify(finished), "hunter2")
        assert.deepStrictEqual(snapshot(), before)
      }
      assert.isFalse(existsSync(none))
    }))
})
