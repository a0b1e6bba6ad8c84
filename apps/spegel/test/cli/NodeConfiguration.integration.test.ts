import { assert, describe, it } from "@effect/vitest"
import * as CleanupProbe from "@spegel-ts/spegel/cleanup/CleanupProbe"
import * as StartingStates from "@spegel-ts/testing/containerd/StartingStates"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import * as LocalServer from "@spegel-ts/testing/network/LocalServer"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Duration, Effect, Fiber, Option } from "effect"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { join } from "node:path"
import { parse } from "smol-toml"

const status = (url: string) =>
  Effect.tryPromise((signal) => fetch(url, { signal })).pipe(Effect.map(({ status }) => status))

describe("spegel on a node", { timeout: 120_000 }, () => {
  it.live("configures containerd with Spegel's flags and variables, and gives back what was there", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const certs = join(directory, "certs.d")
      const secrets = join(directory, "secrets")
      mkdirSync(secrets)
      writeFileSync(join(secrets, "username"), "user")
      writeFileSync(join(secrets, "password"), "secret")
      mkdirSync(join(certs, "docker.io"), { recursive: true })
      const existing = `server = "https://registry-1.docker.io"\n[host."https://cache.example"]\n`
      writeFileSync(join(certs, "docker.io", "hosts.toml"), existing)
      const before = StartingStates.snapshot(certs)

      const configured = yield* SpegelProcess.run([
        "configuration",
        "--mirrored-registries",
        "https://docker.io",
        "http://registry.example:5000",
        "--mirror-targets",
        "http://10.0.0.7:30020",
        "http://fd00::7:30020",
        "--tag-resolution=upstream-first",
        `--basic-auth-dir=${secrets}`
      ], { CONTAINERD_REGISTRY_CONFIG_PATH: certs, RESOLVE_TAGS: "true" })
      assert.deepStrictEqual([configured.code, configured.stderr], [0, ""])
      const paths = ["docker.io", "registry.example_5000_"].map((name) => join(certs, name, "hosts.toml"))
      assert.strictEqual(configured.stdout, paths.map((path) => `wrote ${path}\n`).join(""))
      // containerd 1.x and 2.x take an IPv6 address in different places.
      const targets = ["http://10.0.0.7:30020", "http://[fd00::7]:30020/v2", "http://[fd00::7]:30020"]
      const last = ["http://10.0.0.7:30020/", "http://[fd00::7]:30020/"]
      const hosts = paths.map((path) => Object.keys(parse(readFileSync(path, "utf8"))["host"] as object))
      assert.deepStrictEqual(
        hosts[0]?.toSorted(),
        [
          ...targets,
          "https://cache.example",
          "https://registry-1.docker.io",
          ...last
        ].toSorted()
      )
      assert.deepStrictEqual(hosts[1]?.toSorted(), [...targets, "http://registry.example:5000", ...last].toSorted())

      const cleaned = yield* SpegelProcess.run(["cleanup", `--containerd-registry-config-path=${certs}`])
      assert.deepStrictEqual([cleaned.code, cleaned.stderr], [0, ""])
      assert.strictEqual(cleaned.stdout, paths.map((path) => `restored ${path}\n`).join(""))
      assert.deepStrictEqual(StartingStates.snapshot(certs), before)
    }))

  it.live("tells what it removed, wrote and left unchanged, and of what containerd does not read", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const path = (name: string) => join(directory, name, "hosts.toml")
      const put = (name: string, text: string) => {
        mkdirSync(join(directory, name))
        writeFileSync(path(name), text)
      }
      put("docker.io", `[host."https://cache.example"]\n`)
      put("ghcr.io", `skip_verify = 1\n[host]\n`)
      mkdirSync(path("quay.io"), { recursive: true })
      const configure = (...registries: ReadonlyArray<string>) =>
        SpegelProcess.run([
          "configuration",
          `--containerd-registry-config-path=${directory}`,
          "--mirror-targets=http://127.0.0.1:5000",
          "--prepend-existing=false",
          ...registries.map((registry) => `--mirrored-registries=${registry}`)
        ])
      const first = yield* configure("docker.io", "ghcr.io", "quay.io")
      assert.strictEqual(first.code, 0)
      assert.strictEqual(
        first.stdout,
        `wrote ${path("docker.io")}\n`
          + "  removed https://cache.example: `spegel cleanup` brings it back, --prepend-existing=true keeps it\n"
          + `wrote ${path("ghcr.io")}\n`
      )
      const warnings = first.stderr.split("\n").filter((line) => line.includes(directory))
      assert.include(
        warnings.find((line) => line.includes("ghcr.io")),
        "skip_verify has a value that containerd refuses"
      )
      assert.include(warnings.find((line) => line.includes("quay.io")), "is not a file")
      const second = yield* configure("ghcr.io")
      assert.strictEqual(
        second.stdout,
        `removed the mirror from ${path("docker.io")}\nleft unchanged ${path("ghcr.io")}\n`
      )
    }))

  it.live("is configured once by processes that run at the same time", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const certs = join(directory, "etc", "certs.d")
      const flags = [`--containerd-registry-config-path=${certs}`, "--mirror-targets=http://127.0.0.1:5000"]
      const configure = SpegelProcess.run(["configuration", ...flags, "--mirrored-registries=docker.io,ghcr.io"])
      const runs = yield* Effect.all([configure, configure, configure], { concurrency: "unbounded" })
      assert.deepStrictEqual(runs.map(({ code, stderr }) => [code, stderr]), [[0, ""], [0, ""], [0, ""]])
      const together = StartingStates.snapshot(directory)
      yield* configure
      assert.deepStrictEqual(StartingStates.snapshot(directory), together)
      yield* SpegelProcess.run(["cleanup", ...flags.slice(0, 1)])
      assert.deepStrictEqual(StartingStates.snapshot(directory), [])
    }))

  it.live("cleans up before it says so, until it is stopped; the wait ends when all have said so", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const port = yield* freePort
      mkdirSync(join(directory, "ghcr.io"))
      const before = StartingStates.snapshot(directory)
      const configPath = `--containerd-registry-config-path=${directory}`
      yield* SpegelProcess.run(["configuration", configPath, "--mirror-targets=http://127.0.0.1:5000"])
      assert.notDeepEqual(StartingStates.snapshot(directory), before)

      const wait = yield* SpegelProcess.start(["cleanup-wait", `--probe-endpoint=127.0.0.1:${port}`, "--period=50ms"])
      const cleanup = yield* SpegelProcess.start(["cleanup", configPath, `--addr=127.0.0.1:${port}`])
      assert.strictEqual((yield* wait.finished).code, 0)
      assert.deepStrictEqual(StartingStates.snapshot(directory), before)
      assert.strictEqual(yield* status(`http://127.0.0.1:${port}/healthz`), 200)
      assert.strictEqual(yield* status(`http://127.0.0.1:${port}/`), 404)
      cleanup.child.kill("SIGTERM")
      assert.strictEqual((yield* cleanup.finished).code, 0)
    }))

  it.live("says why it cannot clean up, and does not say that it has", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      mkdirSync(join(directory, "docker.io"))
      writeFileSync(join(directory, "docker.io", "hosts.toml"), "# spegel-ts: begin\n")
      const { code, stderr } = yield* SpegelProcess.run([
        "cleanup",
        `--containerd-registry-config-path=${directory}`,
        `--addr=127.0.0.1:${yield* freePort}`
      ])
      assert.strictEqual(code, 1)
      assert.include(stderr, join(directory, "docker.io", "hosts.toml"))
    }))
})

describe("CleanupProbe", () => {
  const options = { host: "127.0.0.1", threshold: 1, period: Duration.millis(10), timeout: Option.none() }

  const node = Effect.fnUntraced(function*(address: string, port: number, answers: ReadonlyArray<number>) {
    const asked: Array<string> = []
    const server = createServer((request, response) => {
      response.writeHead(answers[asked.length] ?? 200).end()
      asked.push(request.url ?? "")
    })
    yield* LocalServer.listen(server, address, port)
    return asked
  })

  it.live("counts rounds in a row, anew after one that failed", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const asked = yield* node("127.0.0.1", port, [200, 200, 503, 200, 404])
      yield* CleanupProbe.wait({ ...options, port, threshold: 3 })
      assert.deepStrictEqual(asked, Array.from({ length: 8 }, () => "/healthz"))
    }).pipe(Effect.scoped))

  it.live("waits for a name that nobody has yet, and for a node that does not answer, until it is interrupted", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const waiting = yield* Effect.forkChild(
        CleanupProbe.wait({ ...options, host: "nobody.invalid", port })
      )
      const unanswered = yield* Effect.forkChild(
        CleanupProbe.wait({ ...options, port })
      )
      yield* Effect.sleep("200 millis")
      yield* node("127.0.0.1", port, [])
      yield* Fiber.join(unanswered)
      assert.isUndefined(waiting.pollUnsafe())
      yield* Fiber.interrupt(waiting)
    }).pipe(Effect.scoped))
})
