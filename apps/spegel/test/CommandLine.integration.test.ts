import { assert, describe, it } from "@effect/vitest"
import * as Certificates from "@spegel-ts/leader-election/testkit/Certificates"
import { version } from "@spegel-ts/spegel/Version"
import { Effect, Schedule } from "effect"
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { join } from "node:path"
import * as SpegelProcess from "./e2e/SpegelProcess.ts"
import { freePort, temporary } from "./e2e/Upstream.ts"

/** Flags that make a daemon start anywhere, with nothing but a directory of its own. */
const daemonFlags = Effect.fnUntraced(function*(directory: string) {
  const [registry, router, metrics] = yield* Effect.all([freePort, freePort, freePort])
  return {
    url: `http://127.0.0.2:${registry}`,
    metrics: `http://127.0.0.2:${metrics}`,
    flags: [
      "registry",
      `--registry-addr=127.0.0.2:${registry}`,
      `--router-addr=127.0.0.2:${router}`,
      `--metrics-addr=127.0.0.2:${metrics}`,
      `--data-dir=${directory}`,
      `--containerd-sock=${directory}/no.sock`
    ]
  }
})

/** Flags of a certificate for all nodes. */
const certificateFlags = Effect.fnUntraced(function*(directory: string) {
  const { ca, certificate } = yield* Certificates.authority(directory)
  const { cert, key } = yield* certificate("node")
  return [
    `--http-bootstrap-ca-file=${ca}`,
    `--http-bootstrap-cert-file=${cert}`,
    `--http-bootstrap-key-file=${key}`
  ]
})

/** One line that says what is wrong, code 1. */
const assertRefused = ({ code, stderr }: SpegelProcess.Finished, ...words: ReadonlyArray<string>) => {
  const lines = stderr.trim().split("\n").filter((line) => !line.startsWith("{"))
  assert.strictEqual(lines.length, 1, stderr)
  assert.match(lines[0] ?? "", /^spegel: /)
  for (const word of words) assert.include(lines[0], word)
  assert.strictEqual(code, 1)
}

describe("spegel", { timeout: 300_000 }, () => {
  it.live("explains itself", () =>
    Effect.gen(function*() {
      const help = yield* SpegelProcess.run(["--help"])
      for (const command of ["registry", "configuration", "demo", "version"]) assert.include(help.stdout, command)
      assert.strictEqual(help.code, 0)
      const registry = yield* SpegelProcess.run(["registry", "--help"])
      for (const flag of ["--mirror-resolve-timeout DURATION", "env MIRROR_RESOLVE_TIMEOUT, default 20ms", "--store"]) {
        assert.include(registry.stdout, flag)
      }
    }))

  it.live("prints the version that package.json has", () =>
    Effect.gen(function*() {
      const { stdout } = yield* SpegelProcess.run(["version"])
      assert.strictEqual(stdout.trim(), version)
      const manifest = yield* Effect.promise(() => readFile(new URL("../package.json", import.meta.url), "utf8"))
      assert.strictEqual(JSON.parse(manifest).version, version)
    }))

  const wrong: ReadonlyArray<
    readonly [command: string, flag: string, value: string, environment: string, expected: string]
  > = [
    ["registry", "registry-addr", "5000", "REGISTRY_ADDR", "address to listen on"],
    ["registry", "router-addr", "host:1", "ROUTER_ADDR", "address to listen on"],
    ["registry", "metrics-addr", ":99999", "METRICS_ADDR", "address to listen on"],
    ["registry", "store", "docker", "STORE", "containerd or oci-layout:DIR"],
    ["registry", "containerd-sock", "", "", "length of at least 1"],
    ["registry", "containerd-namespace", "", "", "length of at least 1"],
    ["registry", "containerd-content-path", "", "", "length of at least 1"],
    ["registry", "containerd-registry-config-path", "", "", "length of at least 1"],
    ["registry", "data-dir", "", "", "length of at least 1"],
    ["registry", "basic-auth-dir", "", "", "length of at least 1"],
    ["registry", "mirrored-registries", "not a host", "MIRRORED_REGISTRIES", "a registry such as docker.io"],
    ["registry", "registry-filters", "(", "REGISTRY_FILTERS", "a regular expression"],
    ["registry", "mirror-resolve-timeout", "20 ms", "MIRROR_RESOLVE_TIMEOUT", "a duration such as 20ms"],
    ["registry", "mirror-resolve-retries", "0", "MIRROR_RESOLVE_RETRIES", "a number of peers"],
    ["registry", "bootstrap-kind", "carrier-pigeon", "BOOTSTRAP_KIND", "a bootstrap kind: dns"],
    ["registry", "dns-bootstrap-domain", "no domain", "DNS_BOOTSTRAP_DOMAIN", "a domain name"],
    ["registry", "http-bootstrap-peer", "10.0.0.7:5002", "HTTP_BOOTSTRAP_PEER", "a URL"],
    ["registry", "http-bootstrap-addr", "x", "HTTP_BOOTSTRAP_ADDR", "address to listen on"],
    ["registry", "leader-election-namespace", "Spegel", "LEADER_ELECTION_NAMESPACE", "a name of lower-case"],
    ["registry", "leader-election-name", "a b", "LEADER_ELECTION_NAME", "a name of lower-case"],
    ["registry", "peer-cidrs", "10.0.0.0/99", "PEER_CIDRS", "a range of addresses"],
    ["registry", "record-ttl", "10", "RECORD_TTL", "duration"],
    ["registry", "record-refresh", "x", "RECORD_REFRESH", "duration"],
    ["registry", "static-bootstrap-peers", "10.0.0.7", "STATIC_BOOTSTRAP_PEERS", "a peer such as"],
    ["registry", "shutdown-grace", "soon", "SHUTDOWN_GRACE", "a duration such as 20ms"],
    ["registry", "resolve-tags", "maybe", "RESOLVE_TAGS", "true"],
    ["registry", "resolve-latest-tag", "maybe", "RESOLVE_LATEST_TAG", "true"],
    ["registry", "debug-web-enabled", "maybe", "DEBUG_WEB_ENABLED", "true"],
    ["registry", "log-level", "loud", "LOG_LEVEL", "DEBUG, INFO, WARN or ERROR"],
    ["configuration", "mirror-targets", "127.0.0.1:5000", "MIRROR_TARGETS", "a mirror's URL"],
    ["configuration", "mirrored-registries", "/", "MIRRORED_REGISTRIES", "a registry such as docker.io"],
    ["configuration", "containerd-registry-config-path", "", "", "length of at least 1"],
    ["configuration", "resolve-tags", "maybe", "RESOLVE_TAGS", "true"],
    ["configuration", "prepend-existing", "maybe", "PREPEND_EXISTING", "true"],
    ["demo", "nodes", "1", "", "a number of nodes from 2 to 20"],
    ["demo", "layers", "none", "", "a number of layers from 1 to 50"],
    ["demo", "layer-size", "4096", "", "a size in MiB from 1 to 1024"]
  ]
  it.live("names a flag or variable whose value is wrong, with what it should be", () =>
    Effect.forEach(wrong, ([command, flag, value, environment, expected]) =>
      Effect.gen(function*() {
        assertRefused(yield* SpegelProcess.run([command, `--${flag}=${value}`]), flag, expected)
        if (environment === "") return
        assertRefused(yield* SpegelProcess.run([command], { [environment]: value }), flag, expected)
      }), { concurrency: 3, discard: true }))

  it.live("says what does not fit together, and what is unknown", () =>
    Effect.gen(function*() {
      assertRefused(yield* SpegelProcess.run(["registry", "--nonsense"]), "--nonsense")
      assertRefused(yield* SpegelProcess.run(["registry", "--bootstrap-kind=dns"]), "--dns-bootstrap-domain")
      assertRefused(yield* SpegelProcess.run(["registry", "--bootstrap-kind=http"]), "--http-bootstrap-peer")
      assertRefused(
        yield* SpegelProcess.run([
          "registry",
          "--bootstrap-kind=http",
          "--http-bootstrap-peer=https://127.0.0.1/id",
          "--http-bootstrap-cert-file=/x"
        ]),
        "--http-bootstrap-cert-file: goes together with --http-bootstrap-key-file"
      )
      assertRefused(
        yield* SpegelProcess.run(["registry", "--record-refresh=10m"]),
        "--record-refresh: must be shorter than --record-ttl"
      )
      assertRefused(yield* SpegelProcess.run(["configuration"]), "--mirror-targets")
    }))

  it.live("refuses to start without what it needs, and says what that is", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const { flags } = yield* daemonFlags(directory)
      const start = (...more: ReadonlyArray<string>) => SpegelProcess.run([...flags, ...more])

      assertRefused(yield* start("--store=containerd"), `${directory}/no.sock does not exist`, "--containerd-sock")
      assertRefused(yield* start(`--store=oci-layout:${directory}/none`), `${directory}/none does not exist`)

      const corrupt = join(directory, "corrupt")
      yield* Effect.promise(async () => {
        await mkdir(corrupt)
        await writeFile(join(corrupt, "index.json"), `{"manifests": 1`)
      })
      assertRefused(yield* start(`--store=oci-layout:${corrupt}`), join(corrupt, "index.json"))
    }))

  it.live("starts alone as the first of a cluster, whatever its identity file is, and tells who it is", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const { flags, metrics, url } = yield* daemonFlags(directory)
      const key = join(directory, "private.key")
      yield* Effect.promise(() => writeFile(key, ""))
      const { output } = yield* SpegelProcess.start([...flags, "--bootstrap-kind=static", "--node-name=worker-1"])
      yield* SpegelProcess.untilReady(url)
      const logs = output.stderr.trim().split("\n").map((line) => JSON.parse(line) as Record<string, string>)
      const warnings = logs.filter(({ level }) => level === "WARN")
      assert.deepStrictEqual(warnings.map(({ msg }) => msg?.includes(`${key} cannot be used (is empty)`)), [true])
      const running = logs.find(({ msg }) => msg === "running")
      assert.match(running?.["id"] ?? "", /^12D3Koo/)
      assert.strictEqual(running?.["addresses"], "127.0.0.2")
      const page = yield* Effect.promise(() => fetch(`${metrics}/debug/web/`).then((response) => response.text()))
      for (const words of [running?.["id"] ?? "", "ready, alone", "name nobody else"]) assert.include(page, words)
    }))

  it.live("names an address that is in use, whichever it is", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const { flags } = yield* daemonFlags(directory)
      for (const flag of ["registry-addr", "router-addr", "metrics-addr"]) {
        const value = flags.find((text) => text.startsWith(`--${flag}=`))?.slice(flag.length + 3) ?? ""
        yield* Effect.scoped(Effect.gen(function*() {
          yield* Effect.acquireRelease(
            Effect.callback<ReturnType<typeof createServer>>((resume) => {
              const server = createServer().listen(Number(value.split(":")[1]), "127.0.0.2", () =>
                resume(Effect.succeed(server)))
            }),
            (server) =>
              Effect.sync(() =>
                server.close()
              )
          )
          assertRefused(yield* SpegelProcess.run(flags), value, "in use")
        }))
      }
    }))

  it.live("gives a data directory to its group, and takes an identity away again", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const key = join(directory, "private.key")
      const run = (...args: ReadonlyArray<string>) => SpegelProcess.run(["data-dir", ...args], { DATA_DIR: directory })
      const modes = Effect.promise(() =>
        Promise.all([directory, key].map(async (path) => (await stat(path)).mode & 0o777))
      )
      yield* Effect.promise(() => writeFile(key, "a key", { mode: 0o600 }))
      yield* Effect.promise(() => writeFile(`${key}.owner`, "{}"))
      assert.strictEqual((yield* run()).code, 0)
      assert.deepStrictEqual(yield* modes, [0o770, 0o640])
      yield* Effect.promise(() => writeFile(join(directory, "other"), ""))
      for (const again of [1, 2]) assert.strictEqual((yield* run("--remove")).code, 0, String(again))
      assert.deepStrictEqual(yield* Effect.promise(() => readdir(directory)), ["other"])
      assert.strictEqual((yield* run()).code, 0)
      // It runs before the mirror, which can do without.
      const absent = yield* run(`--data-dir=${directory}/none`)
      assert.strictEqual(absent.code, 0)
      for (const words of ["WARN", `${directory}/none`, "run as the directory's owner"]) {
        assert.include(absent.stderr, words)
      }
      assertRefused(yield* run("--remove", `--data-dir=${directory}/other`), `${directory}/other`)
    }))

  it.live("takes settings from the environment, and the command line over it", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const configured = yield* SpegelProcess.run(
        ["configuration", "--mirror-targets", "http://127.0.0.1:5000", "http://127.0.0.1:6000"],
        {
          CONTAINERD_REGISTRY_CONFIG_PATH: directory,
          MIRRORED_REGISTRIES: "https://docker.io, https://ghcr.io",
          MIRROR_TARGETS: "http://127.0.0.1:1"
        }
      )
      assert.strictEqual(configured.code, 0, configured.stderr)
      assert.deepStrictEqual((yield* Effect.promise(() => readdir(directory))).toSorted(), ["docker.io", "ghcr.io"])
      const hosts = yield* Effect.promise(() => readFile(join(directory, "docker.io", "hosts.toml"), "utf8"))
      assert.include(hosts, "127.0.0.1:5000")
      assert.include(hosts, "127.0.0.1:6000")
      assert.notInclude(hosts, "127.0.0.1:1\"")
    }))

  it.live("runs, tells of itself, and ends with code 0 on SIGTERM", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const { flags, metrics, url } = yield* daemonFlags(directory)
      const { child, finished, output } = yield* SpegelProcess.start(flags)
      yield* SpegelProcess.untilReady(url)
      const page = (path: string) =>
        Effect.promise(() => fetch(`${metrics}${path}`).then((response) => response.text()))
      const asked = yield* Effect.promise(() => fetch(`${url}/v2/library/absent/manifests/v1?ns=docker.io`))
      assert.strictEqual(asked.status, 404)
      const exposition = yield* page("/metrics").pipe(
        Effect.filterOrFail((text) => text.includes("spegel_advertised_keys"), () => "not compared yet"),
        Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 100 })
      )
      for (
        const name of [
          "spegel_advertised_images",
          "spegel_advertised_image_tags",
          "spegel_advertised_image_digests",
          "spegel_advertised_content_digests",
          "spegel_advertised_keys",
          "spegel_mirror_requests_total",
          "spegel_mirror_last_success_timestamp_seconds",
          "spegel_resolve_duration_seconds",
          "http_request_duration_seconds",
          "http_response_size_bytes",
          "http_requests_inflight",
          "process_resident_memory_bytes"
        ]
      ) {
        assert.include(exposition, `# TYPE ${name} `)
      }
      assert.include(yield* page("/debug/web/"), "<!doctype html>")
      const [self, ...peers] = JSON.parse(yield* page("/debug/peers")) as ReadonlyArray<Record<string, unknown>>
      assert.deepInclude(self, { self: true, addresses: ["127.0.0.2"] })
      assert.deepStrictEqual(peers, [])
      assert.match(exposition, /^spegel_router_identity_conflicts_total\{[^}]*kind="own"[^}]*\} 0$/m)
      child.kill("SIGTERM")
      const { code } = yield* finished
      assert.strictEqual(code, 0)
      const logs = output.stderr.trim().split("\n").map((line) => JSON.parse(line) as { level: string; msg: string })
      assert.deepStrictEqual(logs.map(({ msg }) => msg).filter((msg) => msg === "running" || msg === "stopped"), [
        "running",
        "stopped"
      ])
    }))

  const noTls = Certificates.missingPrerequisite(process.env)
  const note = noTls === undefined ? "" : ` (skipped: ${noTls})`
  for (const secure of [false, true]) {
    it.live.skipIf(secure && noTls !== undefined)(
      `finds others by what one of them says of itself under /id${secure ? `, over TLS${note}` : ""}`,
      () =>
        Effect.gen(function*() {
          const idPort = yield* freePort
          const first = yield* daemonFlags(yield* temporary)
          const second = yield* daemonFlags(yield* temporary)
          const tls = secure ? yield* certificateFlags(yield* temporary) : []
          const http = (host: string) => [
            `--http-bootstrap-addr=${host}:${idPort}`,
            `--http-bootstrap-peer=${secure ? "https" : "http"}://127.0.0.2:${idPort}/id`,
            ...tls
          ]
          yield* SpegelProcess.start([...first.flags, "--bootstrap-kind=http", ...http("127.0.0.2")])
          yield* SpegelProcess.untilReady(first.url)
          yield* SpegelProcess.start([
            ...second.flags,
            "--bootstrap-kind=static,http",
            "--static-bootstrap-peers=127.0.0.9:1",
            ...http("127.0.0.3")
          ])
          yield* SpegelProcess.untilReady(second.url)
          const peersOf = ({ metrics }: { readonly metrics: string }) =>
            Effect.promise(() => fetch(`${metrics}/debug/peers`).then((response) => response.json())).pipe(
              Effect.filterOrFail((peers) => Array.isArray(peers) && peers.length === 2, () => "alone" as const),
              Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 100 })
            )
          yield* peersOf(first)
          yield* peersOf(second)
          if (secure) return
          const [own] = (yield* Effect.promise(() =>
            fetch(`http://127.0.0.2:${idPort}/id`).then((response) =>
              response.json()
            )
          )) as [{ readonly ID: string; readonly Addrs: ReadonlyArray<string> }]
          assert.match(own.ID, /^12D3Koo/)
          assert.match(own.Addrs[0] ?? "", /^\/ip4\/127\.0\.0\.2\/tcp\/\d+$/)
        })
    )
  }
})
