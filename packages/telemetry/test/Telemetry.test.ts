import { assert, describe, it } from "@effect/vitest"
import * as Logging from "@spegel-ts/telemetry/Logging"
import { MetricsEndpoint } from "@spegel-ts/telemetry/MetricsEndpoint"
import { Effect, Metric, Redacted } from "effect"

describe("MetricsEndpoint", () => {
  it.effect("renders the packages' metrics and the process's", () =>
    Effect.gen(function*() {
      yield* Metric.update(
        Metric.counter("spegel_test_total", { attributes: { registry: "docker.io" }, incremental: true }),
        2
      )
      const { render } = yield* MetricsEndpoint
      const text = yield* render
      assert.match(text, /^spegel_test_total\{registry="docker\.io"\} 2$/m)
      assert.match(text, /^process_resident_memory_bytes \d+$/m)
    }).pipe(Effect.provide(MetricsEndpoint.layer)))
})

describe("Logging", () => {
  it.effect("writes one JSON object a line, with annotations and without secrets", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      yield* Effect.logWarning("a peer\nfailed").pipe(
        Effect.andThen(Effect.logDebug("not this")),
        Effect.annotateLogs({ peer: "10.0.0.7", password: Redacted.make("secret") }),
        Effect.provide(Logging.layer({ minimumLevel: "Info", format: Logging.json, write: (line) => lines.push(line) }))
      )
      assert.strictEqual(lines.length, 1)
      const line = lines[0] ?? ""
      assert.strictEqual(line.indexOf("\n"), line.length - 1)
      const { level, msg, password, peer, time } = JSON.parse(line)
      assert.deepStrictEqual([level, msg, peer, password], ["WARN", "a peer\nfailed", "10.0.0.7", "<redacted>"])
      assert.match(time, /^\d{4}-\d{2}-\d{2}T/)
    }))
})
