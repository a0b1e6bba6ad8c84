import { assert, describe, it } from "@effect/vitest"
import * as LogSink from "@spegel-ts/testing/node/LogSink"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Schedule } from "effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

/** Starts a mirror anywhere, with nothing but a directory of its own. */
const start = Effect.fnUntraced(function*(options: {
  readonly flags?: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
  readonly stderr?: "pipe" | number
}) {
  const directory = yield* temporary
  const ports = yield* MirrorPorts.free
  const url = `http://127.0.0.2:${ports.registry}`
  const process = yield* SpegelProcess.start(
    [
      "registry",
      ...MirrorPorts.flags("127.0.0.2", ports),
      `--data-dir=${directory}`,
      `--containerd-sock=${directory}/no.sock`,
      ...(options.flags ?? [])
    ],
    options.environment,
    options.stderr
  )
  yield* SpegelProcess.untilReady(url)
  const metric = (name: string) =>
    Effect.promise(async () => {
      const text = await (await fetch(`http://127.0.0.2:${ports.metrics}/metrics`)).text()
      const line = text.split("\n").find((line) => line.startsWith(`${name} `))
      return line === undefined ? Number.NaN : Number(line.slice(name.length))
    })
  const terminate = Effect.suspend(() => {
    process.child.kill("SIGTERM")
    return process.finished
  })
  return { ...process, url, metric, terminate }
})

const until = <E>(condition: Effect.Effect<boolean, E>) =>
  Effect.repeat(condition, { until: (met) => met, schedule: Schedule.spaced("50 millis") })

interface Line {
  readonly time: string
  readonly level: string
  readonly msg: string
  readonly [annotation: string]: unknown
}

const linesOf = ({ stderr }: { readonly stderr: string }) =>
  stderr.trim().split("\n").map((line) => JSON.parse(line) as Line)

/** Code that runs in the mirror's process, before its own. */
const injected = (code: string) => ({ NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(code)}` })

describe("standard error", { timeout: 120_000 }, () => {
  it.live.each(LogSink.kinds)("is in nobody's way where it is %s", (kind) =>
    Effect.gen(function*() {
      const mirror = yield* start({ flags: ["--log-level=DEBUG"], stderr: yield* LogSink.stderrOf(kind) })
      // More than a pipe and what is kept for it hold.
      const url = `${mirror.url}/v2/app/manifests/v1?ns=registry.example&long=${"x".repeat(6000)}`
      for (let request = 0; request < 300; request++) {
        const response = yield* Effect.promise(() => fetch(url))
        assert.strictEqual(response.status, 404)
      }
      const dropped = yield* mirror.metric("spegel_log_lines_dropped_total")
      if (kind === "read") assert.strictEqual(dropped, 0)
      else assert.isAbove(dropped, 0)
      const { code } = yield* mirror.terminate
      assert.strictEqual(code, 0)
      if (kind !== "read") return
      const lines = linesOf(mirror.output)
      const warnings = lines.filter(({ level }) => level === "WARN" || level === "ERROR").map(({ msg }) => msg)
      assert.deepStrictEqual(
        warnings.filter((msg) => !/^(?:no --bootstrap-kind is set|peer auth is off)/.test(msg)),
        []
      )
      const requests = lines.filter(({ msg }) => msg === "request")
      assert.strictEqual(requests.length, 300)
      for (const { began, level, time } of requests) {
        assert.strictEqual(level, "DEBUG")
        assert.strictEqual(new Date(time).toISOString(), time)
        assert.isAtMost(Date.parse(String(began)), Date.parse(time))
      }
    }))

  it.live("goes on where a socket is its log, and nobody reads it", () =>
    Effect.gen(function*() {
      const mirror = yield* start({ flags: ["--log-level=DEBUG"] })
      mirror.child.stderr?.pause()
      const url = `${mirror.url}/v2/app/manifests/v1?ns=registry.example&long=${"x".repeat(6000)}`
      yield* until(
        Effect.promise(() => Promise.all(Array.from({ length: 50 }, () => fetch(url)))).pipe(
          Effect.andThen(mirror.metric("spegel_log_lines_dropped_total")),
          Effect.map((dropped) => dropped > 0)
        )
      )
      const { child } = mirror
      const ended = Effect.callback<number | null>((resume) => {
        child.once("exit", (code) => resume(Effect.succeed(code)))
        child.kill("SIGTERM")
      })
      assert.strictEqual(yield* ended, 0)
      child.stderr?.resume()
    }))

  it.live("tells as JSON why a command ends", () =>
    Effect.gen(function*() {
      for (
        const [args, expected, words] of [
          [["registry", "--registry-addr=nonsense"], 2, "--registry-addr"],
          [["registry", "--store=oci-layout:/no/such/directory"], 1, "/no/such/directory"]
        ] as const
      ) {
        const { code, stderr } = yield* SpegelProcess.run(args)
        assert.strictEqual(code, expected)
        const last = linesOf({ stderr }).at(-1)
        assert.strictEqual(last?.level, "ERROR")
        assert.include(last?.msg, words)
        assert.match(last?.time ?? "", /^\d{4}-\d{2}-\d{2}T/)
      }
    }))

  it.live("is for people on a terminal", () =>
    Effect.gen(function*() {
      const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
      const command = [process.execPath, "--conditions=@spegel-ts/source", main, "registry"].join(" ")
      const inTerminal = (flags: string, environment: Readonly<Record<string, string>>) =>
        Effect.promise(() =>
          promisify(execFile)("script", ["-qc", `${command} ${flags}`, "/dev/null"], {
            env: { ...process.env, TERM: "xterm", ...environment }
          }).then(({ stdout }) => stdout.trim().split("\r\n"))
        )
      const [refused, ...others] = yield* inTerminal("--registry-addr=nonsense", {})
      assert.deepStrictEqual(others, [])
      assert.match(refused ?? "", /^spegel: .*--registry-addr/)
      // A line of a log, and the reason for the end.
      const directory = yield* temporary
      // No machine has this address (RFC 5737).
      const flags = `--router-addr=192.0.2.1:1 --data-dir=${directory} --store=oci-layout:${directory}`
      for (const environment of [{}, { NO_COLOR: "1" }]) {
        const lines = yield* inTerminal(flags, environment)
        assert.match(lines.at(-1) ?? "", /^spegel: /)
        const escape = "NO_COLOR" in environment ? "" : "\u001b[33m"
        assert.include(lines[0], `${escape}WARN`)
        assert.isTrue(lines.every((line) => !line.startsWith("{")))
        if (escape === "") assert.notInclude(lines.join(), "\u001b")
      }
    }))

  it.live("goes on after SIGHUP", () =>
    Effect.gen(function*() {
      const mirror = yield* start({})
      mirror.child.kill("SIGHUP")
      const response = yield* Effect.promise(() => fetch(`${mirror.url}/readyz`))
      assert.strictEqual(response.status, 200)
      const { code, stderr } = yield* mirror.terminate
      assert.strictEqual(code, 0)
      assert.strictEqual(linesOf({ stderr }).at(-1)?.msg, "stopped")
    }))

  it.live("has what Node warns of, and promises of libraries that fail, as lines of the log", () =>
    Effect.gen(function*() {
      const mirror = yield* start({
        environment: injected(`process.on("SIGUSR2", () => {
          process.emitWarning("mind the gap", "TestWarning")
          Promise.reject(new Error("nobody waits"))
        })`)
      })
      assert.strictEqual(yield* mirror.metric(`spegel_background_failures_total{task="promise"}`), 0)
      mirror.child.kill("SIGUSR2")
      yield* until(Effect.map(
        mirror.metric(`spegel_background_failures_total{task="promise"}`),
        (failures) => failures === 1
      ))
      const { code, stderr } = yield* mirror.terminate
      assert.strictEqual(code, 0)
      const warnings = linesOf({ stderr }).filter(({ level }) => level === "WARN")
      assert.includeMembers(warnings.map(({ msg }) => msg), ["mind the gap", "promise failed: nobody waits"])
    }))

  it.live("tells as JSON of an exception that nothing has caught, and ends", () =>
    Effect.gen(function*() {
      const mirror = yield* start({
        environment: injected(`process.on("SIGUSR2", () => setTimeout(() => { throw new Error("a bug") }))`)
      })
      mirror.child.kill("SIGUSR2")
      const { code, stderr } = yield* mirror.finished
      assert.strictEqual(code, 1)
      const last = linesOf({ stderr }).at(-1)
      assert.deepStrictEqual([last?.level, last?.msg], ["ERROR", "unexpected failure: a bug"])
    }))
})
