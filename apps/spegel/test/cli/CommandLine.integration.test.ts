import { assert, describe, it } from "@effect/vitest"
import * as Certificates from "@spegel-ts/testing/kubernetes/Certificates"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Schedule } from "effect"
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { join } from "node:path"

/** Flags that make a daemon start anywhere, with nothing but a directory of its own. */
const daemonFlags = Effect.fnUntraced(function*(directory: string) {
  const ports = yield* MirrorPorts.free
  return {
    url: `http://127.0.0.2:${ports.registry}`,
    metrics: `http://127.0.0.2:${ports.metrics}`,
    flags: [
      "registry",
      ...MirrorPorts.flags("127.0.0.2", ports),
      `--data-dir=${directory}`,
      `--containerd-sock=${directory}/no.sock`
    ]
  }
})

/** Flags of a certificate for all nodes: by files, and by their directory. */
const certificateFlags = Effect.fnUntraced(function*(directory: string) {
  const { ca, certificate } = yield* Certificates.authority(directory)
  const { cert, key } = yield* certificate("node")
  const files = [[ca, "ca.crt"], [cert, "tls.crt"], [key, "tls.key"]] as const
  const together = yield* temporary
  yield* Effect.promise(() => Promise.all(files.map(([path, name]) => copyFile(path, join(together, name)))))
  return {
    byFile: [
      `--http-bootstrap-ca-file=${ca}`,
      `--http-bootstrap-cert-file=${cert}`,
      `--http-bootstrap-key-file=${key}`
    ],
    byDirectory: [`--http-bootstrap-cert-dir=${together}`]
  }
})

/** One line that says what is wrong, code 1. */
const assertRefused = ({ code, stderr }: SpegelProcess.Finished, ...words: ReadonlyArray<string>) => {
  const lines = stderr.trim().split("\n").map((line) => JSON.parse(line) as { level: string; msg: string })
  const errors = lines.filter(({ level }) => level === "ERROR")
  assert.strictEqual(errors.length, 1, stderr)
  for (const word of words) assert.include(errors[0]?.msg, word)
  assert.strictEqual(code, 1)
}

describe("the spegel process", { timeout: 300_000 }, () => {
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
      assert.lengthOf(warnings, 2)
      assert.include(warnings[0]?.["msg"], `${key} cannot be used (is empty)`)
      assert.match(warnings[1]?.["msg"] ?? "", /^peer auth is off: .*--cluster-key-file/)
      const running = logs.find(({ msg }) => msg === "running")
      assert.strictEqual(running?.["peerAuth"], "off")
      assert.match(running?.["id"] ?? "", /^12D3Koo/)
      assert.strictEqual(running?.["addresses"], "127.0.0.2")
      const page = yield* Effect.promise(() => fetch(`${metrics}/debug/web/`).then((response) => response.text()))
      for (const words of [running?.["id"] ?? "", "ready, alone", "name nobody else"]) assert.include(page, words)
    }))

  it.live("says how peers prove themselves where there is a cluster key, and warns of nothing then", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const { flags, url } = yield* daemonFlags(directory)
      const clusterKey = join(directory, "cluster-key")
      yield* SpegelProcess.run(["cluster-key", "generate", "--output", clusterKey])
      const { output } = yield* SpegelProcess.start([
        ...flags,
        "--bootstrap-kind=static",
        `--cluster-key-file=${clusterKey}`
      ])
      yield* SpegelProcess.untilReady(url)
      const logs = output.stderr.trim().split("\n").map((line) => JSON.parse(line) as Record<string, string>)
      assert.deepStrictEqual(logs.filter(({ level }) => level === "WARN"), [])
      assert.strictEqual(logs.find(({ msg }) => msg === "running")?.["peerAuth"], "require")
      const key = (yield* Effect.promise(() => readFile(clusterKey, "utf8"))).trim()
      assert.notInclude(output.stderr, key)
    }))

  it.live("does not start with a cluster key that is none", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const clusterKey = join(directory, "cluster-key")
      yield* Effect.promise(() => writeFile(clusterKey, "hunter2\n"))
      for (const path of [clusterKey, join(directory, "none")]) {
        const { flags } = yield* daemonFlags(directory)
        const finished = yield* SpegelProcess.run([...flags, "--bootstrap-kind=static", `--cluster-key-file=${path}`])
        assertRefused(finished, `cluster key ${path}: `, "--cluster-key-file")
        assert.notInclude(finished.stderr, "hunter2")
      }
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
        Effect.filterOrFail((text) => text.includes("http_response_size_bytes"), () => "not counted yet"),
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
          const tls = secure ? yield* certificateFlags(yield* temporary) : { byFile: [], byDirectory: [] }
          const http = (host: string, flag: "peer" | "url", certificate: ReadonlyArray<string>) => [
            `--http-bootstrap-addr=${host}:${idPort}`,
            `--http-bootstrap-${flag}=${secure ? "https" : "http"}://127.0.0.2:${idPort}/id`,
            ...certificate
          ]
          yield* SpegelProcess.start([
            ...first.flags,
            "--bootstrap-kind=http",
            ...http("127.0.0.2", "peer", tls.byFile)
          ])
          yield* SpegelProcess.untilReady(first.url)
          yield* SpegelProcess.start([
            ...second.flags,
            "--bootstrap-kind=static,http",
            "--static-bootstrap-peers=127.0.0.9:1",
            ...http("127.0.0.3", "url", tls.byDirectory)
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
