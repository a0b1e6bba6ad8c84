import { assert, describe, it } from "@effect/vitest"
import { environmentName } from "@spegel-ts/spegel/cli/Setting"
import * as FlagHints from "@spegel-ts/spegel/settings/FlagHints"
import { commit, version } from "@spegel-ts/spegel/Version"
import * as InProcess from "@spegel-ts/testing/node/InProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"

const assertRefused = ({ code, complaints, stdout }: InProcess.Finished, ...words: ReadonlyArray<string>) => {
  assert.strictEqual(code, 2, stdout)
  assert.lengthOf(complaints, 1)
  assert.notInclude(complaints[0], "\n")
  for (const word of words) assert.include(complaints[0], word)
}

/** Ends before anything starts, but after all flags were read: what follows is not under test here. */
const untilRead = ["--record-ttl=1m", "--record-refresh=1m"]
const read = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) =>
  InProcess.run(["registry", ...args, ...untilRead], environment)
const assertRead = (finished: InProcess.Finished) => assertRefused(finished, "--record-refresh: must be shorter than")

describe("spegel", () => {
  it.effect("prints the version that package.json has, for people and for programs", () =>
    Effect.gen(function*() {
      const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"))
      assert.strictEqual(manifest.version, version)
      for (const args of [["version"], ["version", "--format=text"], ["version", "--format", "text"]]) {
        const [first, node, platform, plane] = (yield* InProcess.run(args)).stdout.split("\n")
        assert.strictEqual(first, `spegel version ${version} ${commit}`)
        assert.strictEqual(node, `node: ${process.version}`)
        assert.match(platform ?? "", /^platform: linux\/(?:amd64|arm64), \S/)
        assert.match(plane ?? "", /^data plane: (?:zero-copy|portable)$/)
      }
      const { build, runtime } = JSON.parse((yield* InProcess.run(["version", "--format=json"])).stdout)
      assert.deepStrictEqual(build, { version, commit, nodeVersion: process.version })
      assert.strictEqual(runtime.os, "linux")
      assertRefused(yield* InProcess.run(["version", "--format=yaml"]), "--format", "yaml")
    }))

  const wrong: ReadonlyArray<readonly [command: string, flag: string, value: string, expected: string]> = [
    ["registry", "registry-addr", "5000", "address to listen on"],
    ["registry", "router-addr", "host:1", "address to listen on"],
    ["registry", "metrics-addr", ":99999", "address to listen on"],
    ["registry", "store", "docker", "containerd or oci-layout:DIR"],
    ["registry", "mirrored-registries", "not a host", "a registry such as docker.io"],
    ["registry", "registry-filters", "(", "a regular expression in RE2's syntax (missing closing ): `(`)"],
    ["registry", "registry-filters", "(?=a)", "invalid or unsupported Perl syntax"],
    ["registry", "mirror-resolve-timeout", "20 ms", "a duration such as 20ms"],
    ["registry", "mirror-resolve-timeout", "-1s", "a duration such as 20ms"],
    ["registry", "mirror-first-byte-timeout", "0", "a duration longer than 0"],
    ["registry", "mirror-answer-timeout", "0s", "a duration longer than 0"],
    ["registry", "mirror-stall-timeout", "0", "a duration longer than 0"],
    ["registry", "mirror-resolve-retries", "0", "a number of peers from 1 to 100"],
    ["registry", "mirror-min-speed", "1e6", "a number of bytes"],
    ["registry", "max-uploads", "-1", "a number of uploads"],
    ["registry", "bootstrap-kind", "carrier-pigeon", "a bootstrap kind: dns"],
    ["registry", "dns-bootstrap-domain", "no domain", "a domain name"],
    ["registry", "dns-bootstrap-domain", `${"a".repeat(200)}!`, "a domain name"],
    ["registry", "http-bootstrap-peer", "10.0.0.7:5002", "a URL"],
    ["registry", "http-bootstrap-url", "10.0.0.7:5002", "a URL"],
    ["registry", "http-bootstrap-addr", "x", "address to listen on"],
    ["registry", "leader-election-namespace", "Spegel", "a name of lower-case"],
    ["registry", "leader-election-name", "a b", "a name of lower-case"],
    ["registry", "peer-cidrs", "10.0.0.0/99", "a range of addresses"],
    ["registry", "record-ttl", "10", "duration"],
    ["registry", "record-refresh", "0", "duration"],
    ["registry", "static-bootstrap-peers", "10.0.0.7", "a peer such as"],
    ["registry", "shutdown-grace", "soon", "a duration such as 20ms"],
    ["registry", "resolve-tags", "maybe", "true or false"],
    ["registry", "resolve-latest-tag", "yes", "true or false"],
    ["registry", "debug-web-enabled", "tRUE", "true or false"],
    ["registry", "log-level", "loud", "DEBUG, INFO, WARN or ERROR"],
    ["configuration", "mirror-targets", "127.0.0.1:5000", "a mirror's URL"],
    ["configuration", "mirrored-registries", "/", "a registry such as docker.io"],
    ["configuration", "tag-resolution", "sometimes", "mirror, upstream-first, never"],
    ["configuration", "resolve-tags", "maybe", "true or false"],
    ["configuration", "prepend-existing", "maybe", "true or false"],
    ["cleanup", "addr", "8080", "address to listen on"],
    ["cleanup-wait", "probe-endpoint", "spegel", "a host and a port"],
    ["cleanup-wait", "threshold", "0", "a number of rounds from 1 to 1000"],
    ["cleanup-wait", "period", "0", "a duration longer than 0"],
    ["cleanup-wait", "timeout", "soon", "a duration such as 20ms"],
    ["cleanup-wait", "daemonset", "spegel-cleanup", "a namespace and a name"],
    ["cleanup-wait", "mirror-daemonset", "a b", "a name"],
    ["registry", "shutdown-delay", "soon", "a duration such as 20ms"],
    ["registry", "peer-auth", "maybe", "require, prefer, off"],
    ["registry", "zone", "zone a", "a zone: up to 63 letters"],
    ["registry", "zone", "z".repeat(64), "a zone: up to 63 letters"]
  ]
  for (const [command, flag, value, expected] of wrong) {
    const variable = flag.toUpperCase().replaceAll("-", "_")
    const given = JSON.stringify(value)
    const needed = command === "cleanup-wait" && flag !== "probe-endpoint"
      ? [command, "--probe-endpoint=spegel:8080"]
      : [command]
    it.effect(`${command} names --${flag}=${value}, or ${variable}, and says what it should be`, () =>
      Effect.gen(function*() {
        assertRefused(yield* InProcess.run([...needed, `--${flag}=${value}`]), `--${flag}=${given}: `, expected)
        const byVariable = yield* InProcess.run(needed, { [variable]: value })
        assertRefused(byVariable, `environment variable ${variable}=${given}: `, expected)
        assert.notInclude(byVariable.complaints[0], "config\"")
      }))
  }

  const never: ReadonlyArray<readonly [command: string, flag: string]> = [
    ["registry", "containerd-sock"],
    ["registry", "containerd-namespace"],
    ["registry", "containerd-content-path"],
    ["registry", "containerd-registry-config-path"],
    ["registry", "data-dir"],
    ["registry", "basic-auth-dir"],
    ["configuration", "containerd-registry-config-path"]
  ]
  for (const [command, flag] of never) {
    it.effect(`${command} needs a value behind --${flag}`, () =>
      Effect.gen(function*() {
        assertRefused(yield* InProcess.run([command, `--${flag}=`]), `--${flag}=""`, "length of at least 1")
      }))
  }

  it.effect("names the one value of a list that is wrong", () =>
    Effect.gen(function*() {
      assertRefused(
        yield* InProcess.run(["registry"], { REGISTRY_FILTERS: `:latest$,"a{2,1}",:dev$` }),
        `environment variable REGISTRY_FILTERS="a{2,1}": `
      )
      assertRefused(
        yield* InProcess.run(["registry", "--peer-cidrs", "10.0.0.0/8", "fd00::/999"]),
        `--peer-cidrs="fd00::/999": `
      )
      // A registry filter is whole on the command line, whatever commas it has.
      assertRefused(
        yield* InProcess.run(["registry", "--registry-filters=:dev$", "--registry-filters=a{1,3}(,b"]),
        `--registry-filters="a{1,3}(,b": `
      )
      assertRefused(
        yield* InProcess.run(["registry"], { MIRRORED_REGISTRIES: `docker.io,"ghcr.io` }),
        "environment variable MIRRORED_REGISTRIES=",
        "double quotes"
      )
    }))

  it.effect("says what does not fit together, and what is unknown", () =>
    Effect.gen(function*() {
      const http = ["registry", "--bootstrap-kind=http"]
      assertRefused(yield* InProcess.run(["registry", "--nonsense"]), "--nonsense")
      assertRefused(yield* InProcess.run(["registry", "--bootstrap-kind=dns"]), "--dns-bootstrap-domain")
      assertRefused(yield* InProcess.run(http), "--http-bootstrap-peer")
      assertRefused(
        yield* InProcess.run([
          ...http,
          "--http-bootstrap-peer=https://127.0.0.1/id",
          "--http-bootstrap-cert-file=/x"
        ]),
        "--http-bootstrap-cert-file: goes together with --http-bootstrap-key-file"
      )
      assertRefused(
        yield* InProcess.run([...http, "--http-bootstrap-peer=http://a/id", "--http-bootstrap-url=http://b/id"]),
        "--http-bootstrap-url: contradicts --http-bootstrap-peer"
      )
      assertRefused(
        yield* InProcess.run(["registry", "--record-refresh=10m"]),
        "--record-refresh: must be shorter than --record-ttl"
      )
    }))

  it("names the flags behind the errors of libraries, which know none", () => {
    const error = { _tag: "NoUsableAddress", message: "this node has no address" }
    assert.strictEqual(FlagHints.withFlags(error), "this node has no address (check --router-addr and --peer-cidrs)")
    for (const other of [{ ...error, _tag: "Other" }, { ...error, message: "check --router-addr" }]) {
      assert.strictEqual(FlagHints.withFlags(other), other.message)
    }
  })

  it.effect("says which settings of configuration do not fit, and touches nothing", () =>
    Effect.gen(function*() {
      const directory = join(yield* temporary, "certs.d")
      const target = "--mirror-targets=http://10.0.0.7:30020"
      const cases: ReadonlyArray<readonly [args: ReadonlyArray<string>, reason: string]> = [
        [[], "--mirror-targets: is needed"],
        [[target, "--tag-resolution=upstream-first"], "needs --mirrored-registries"],
        [[target, "--tag-resolution=mirror", "--resolve-tags=false"], "contradicts --resolve-tags=false"]
      ]
      for (const [args, reason] of cases) {
        assertRefused(
          yield* InProcess.run(["configuration", `--containerd-registry-config-path=${directory}`, ...args]),
          reason
        )
      }
      assert.isFalse(existsSync(directory))
    }))

  it.effect("wants both files of a certificate in the directory of certificates", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const run = InProcess.run(["registry", "--bootstrap-kind=http", "--http-bootstrap-url=https://127.0.0.1/id"], {
        HTTP_BOOTSTRAP_CERT_DIR: directory
      })
      yield* Effect.sync(() => writeFileSync(join(directory, "tls.crt"), ""))
      assertRefused(yield* run, "--http-bootstrap-cert-dir", directory, "tls.key")
    }))

  const taken: ReadonlyArray<readonly [args: ReadonlyArray<string>, environment: Readonly<Record<string, string>>]> = [
    ...["1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"].flatMap((value) => [
      [[`--resolve-tags=${value}`], {}] as const,
      [[], { RESOLVE_TAGS: value }] as const
    ]),
    [["--resolve-tags"], {}],
    [["--resolve-tags="], {}],
    [["--resolve-tags", "false"], {}],
    ...["0", ".5s", "1.s", "+5s", "500μs", "500µs", "500us", "1m30s", "2562047h47m16.854775807s"].flatMap((value) => [
      [[`--mirror-hedge-delay=${value}`], {}] as const,
      [[], { MIRROR_HEDGE_DELAY: value }] as const
    ]),
    [["--mirror-resolve-retries=0x3"], {}],
    [[], { MIRROR_VERIFY_SIZE: "4_194_304" }],
    ...["debug", "Info", "WARN", "INFO+2", "error-1", "ERROR+9"].map((level) =>
      [[`--log-level=${level}`], {}] as const
    ),
    [["--registry-filters", ":latest$", "^docker\\.io/", ":v\\d{1,3}$"], {}],
    [["-registry-addr=:5000", "-router-addr", ":5001"], {}],
    // An empty variable is as good as none.
    [[], { MIRROR_RESOLVE_TIMEOUT: "", REGISTRY_FILTERS: "", LOG_LEVEL: "" }]
  ]
  for (const [args, environment] of taken) {
    const title = [...Object.entries(environment).map((pair) => pair.join("=")), ...args].join(" ")
    it.effect(`takes ${title}`, () => Effect.map(read(args, environment), assertRead))
  }

  it.effect("lets what is said last decide", () =>
    Effect.gen(function*() {
      assertRead(
        yield* read([
          "--mirror-resolve-timeout=soon",
          "--mirror-resolve-timeout=1s",
          "--resolve-tags=maybe",
          "--resolve-tags=T"
        ])
      )
      assertRefused(yield* read(["--mirror-resolve-timeout=1s", "--mirror-resolve-timeout=soon"]), `"soon"`)
    }))

  it.effect("takes settings from the environment, and the command line over it", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const configured = yield* InProcess.run(
        ["configuration", "--mirror-targets", "http://127.0.0.1:5000", "http://127.0.0.1:6000"],
        {
          CONTAINERD_REGISTRY_CONFIG_PATH: directory,
          MIRRORED_REGISTRIES: `https://docker.io, "https://ghcr.io"`,
          MIRROR_TARGETS: "http://127.0.0.1:1"
        }
      )
      assert.deepStrictEqual(configured.complaints, [])
      assert.deepStrictEqual(readdirSync(directory).toSorted(), ["docker.io", "ghcr.io"])
      const hosts = readFileSync(join(directory, "docker.io", "hosts.toml"), "utf8")
      assert.include(hosts, "127.0.0.1:5000")
      assert.include(hosts, "127.0.0.1:6000")
      assert.notInclude(hosts, "127.0.0.1:1\"")
    }))

  it.effect("gives a data directory to its group, and takes an identity away again", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const key = join(directory, "private.key")
      const run = (...args: ReadonlyArray<string>) => InProcess.run(["data-dir", ...args], { DATA_DIR: directory })
      writeFileSync(key, "a key", { mode: 0o600 })
      for (const beside of ["owner", "lock"]) writeFileSync(`${key}.${beside}`, "{}")
      assert.isTrue((yield* run()).succeeded)
      assert.deepStrictEqual([directory, key].map((path) => statSync(path).mode & 0o777), [0o770, 0o640])
      writeFileSync(join(directory, "other"), "")
      for (const again of [1, 2]) assert.isTrue((yield* run("--remove")).succeeded, String(again))
      assert.deepStrictEqual(readdirSync(directory), ["other"])
      assert.isTrue((yield* run()).succeeded)
      // It runs before the mirror, which can do without.
      const absent = yield* run(`--data-dir=${directory}/none`)
      assert.isTrue(absent.succeeded)
      for (const words of [`${directory}/none`, "run as the directory's owner"]) {
        assert.include(absent.warnings.join("\n"), words)
      }
      const refused = yield* run("--remove", `--data-dir=${directory}/other`)
      assert.strictEqual(refused.code, 1)
      assert.include(refused.complaints[0], `${directory}/other`)
    }))

  /** Environment variables of Go Spegel, with their flags. */
  const ofGoSpegel: Readonly<Record<string, string>> = {
    "addr": "ADDR",
    "bootstrap-kind": "BOOTSTRAP_KIND",
    "containerd-content-path": "CONTAINERD_CONTENT_PATH",
    "containerd-namespace": "CONTAINERD_NAMESPACE",
    "containerd-registry-config-path": "CONTAINERD_REGISTRY_CONFIG_PATH",
    "containerd-sock": "CONTAINERD_SOCK",
    "data-dir": "DATA_DIR",
    "debug-web-enabled": "DEBUG_WEB_ENABLED",
    "dns-bootstrap-domain": "DNS_BOOTSTRAP_DOMAIN",
    "http-bootstrap-addr": "HTTP_BOOTSTRAP_ADDR",
    "http-bootstrap-peer": "HTTP_BOOTSTRAP_PEER",
    "kubeconfig-path": "KUBECONFIG_PATH",
    "leader-election-name": "LEADER_ELECTION_NAME",
    "leader-election-namespace": "LEADER_ELECTION_NAMESPACE",
    "log-level": "LOG_LEVEL",
    "metrics-addr": "METRICS_ADDR",
    "mirror-resolve-retries": "MIRROR_RESOLVE_RETRIES",
    "mirror-resolve-timeout": "MIRROR_RESOLVE_TIMEOUT",
    "mirror-targets": "MIRROR_TARGETS",
    "mirrored-registries": "MIRRORED_REGISTRIES",
    "period": "PERIOD",
    "prepend-existing": "PREPEND_EXISTING",
    "probe-endpoint": "PROBE_ENDPOINT",
    "registry-addr": "REGISTRY_ADDR",
    "registry-filters": "REGISTRY_FILTERS",
    "resolve-latest-tag": "RESOLVE_LATEST_TAG",
    "resolve-tags": "RESOLVE_TAGS",
    "router-addr": "ROUTER_ADDR",
    "static-bootstrap-peers": "STATIC_BOOTSTRAP_PEERS",
    "threshold": "THRESHOLD"
  }
  it.effect("has the flags and variables of Go Spegel", () =>
    Effect.gen(function*() {
      const help = (yield* Effect.forEach(
        ["registry", "configuration", "cleanup", "cleanup-wait"],
        (command) => InProcess.run([command, "--help"])
      )).map(({ stdout }) => stdout).join("\n")
      for (const [flag, variable] of Object.entries(ofGoSpegel)) {
        assert.strictEqual(environmentName(flag), variable)
        assert.match(help, new RegExp(`--${flag}\\b[^]*?\\(env\\s+${variable}[,)]`))
      }
    }))
})
