import { assert, describe, it } from "@effect/vitest"
import * as Logging from "@spegel-ts/telemetry/Logging"
import { MetricsEndpoint } from "@spegel-ts/telemetry/MetricsEndpoint"
import { terminal } from "@spegel-ts/telemetry/TerminalLine"
import { Cause, Effect, Metric, Redacted } from "effect"

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

  it.live("measures how late the event loop is from one scrape to the next, without the interval of its timer", () =>
    Effect.gen(function*() {
      const { render } = yield* MetricsEndpoint
      const lags = Effect.map(
        render,
        (text) =>
          new Map(
            [...text.matchAll(/^nodejs_eventloop_lag_(\w+)_seconds (\S+)$/gm)].map(([, part, value]) =>
              [part, Number(value)] as const
            )
          )
      )
      const parts = ["min", "max", "mean", "stddev", "p50", "p90", "p99"]
      const none = yield* lags
      assert.deepStrictEqual(new Set(none.keys()), new Set<string | undefined>(parts))
      const blockedSeconds = 0.4
      const blocked = Effect.gen(function*() {
        yield* Effect.sleep("150 millis")
        const end = performance.now() + blockedSeconds * 1000
        while (performance.now() < end);
        yield* Effect.sleep("150 millis")
        return yield* lags
      })
      // At least the part of the block beyond a whole interval counts as lag.
      assert.isAtLeast((yield* blocked).get("max") ?? 0, blockedSeconds - 0.2)
      // Nothing is left of it in the next scrape, not even the interval.
      assert.deepStrictEqual(new Set((yield* lags).values()), new Set([0]))
    }).pipe(Effect.provide(MetricsEndpoint.layer)))
})

/** The lines that a program logs. */
const logged = (program: Effect.Effect<void>, format: Logging.Format) =>
  Effect.sync(() => new Array<string>()).pipe(
    Effect.tap((lines) =>
      Effect.provide(program, Logging.layer({ minimumLevel: "Info", format, write: (line) => lines.push(line) }))
    )
  )

const cyclic: Record<string, unknown> = { name: "cyclic" }
cyclic["self"] = cyclic

describe("Logging", () => {
  it.effect("writes one JSON object a line, with annotations and without secrets", () =>
    Effect.gen(function*() {
      const lines = yield* logged(
        Effect.logWarning("a peer\nfailed").pipe(
          Effect.andThen(Effect.logDebug("not this")),
          Effect.annotateLogs({ peer: "10.0.0.7", password: Redacted.make("secret") })
        ),
        Logging.json
      )
      assert.strictEqual(lines.length, 1)
      const line = lines[0] ?? ""
      assert.strictEqual(line.indexOf("\n"), line.length - 1)
      const { level, msg, password, peer, time } = JSON.parse(line)
      assert.deepStrictEqual([level, msg, peer, password], ["WARN", "a peer\nfailed", "10.0.0.7", "<redacted>"])
      assert.match(time, /^\d{4}-\d{2}-\d{2}T/)
    }))

  it.effect("keeps its own fields, whatever annotations are called", () =>
    Effect.gen(function*() {
      const [line = ""] = yield* logged(
        Effect.logError("it failed", Cause.die(new Error("a bug"))).pipe(
          Effect.annotateLogs({ time: 7, level: "high", msg: "other", error: "none", url: "/v2/" })
        ),
        Logging.json
      )
      const { error, level, msg, time, ...others } = JSON.parse(line)
      assert.deepStrictEqual([level, msg], ["ERROR", "it failed"])
      assert.isNotNaN(Date.parse(time))
      assert.include(error, "a bug")
      assert.deepStrictEqual(others, {
        "fields.time": 7,
        "fields.level": "high",
        "fields.msg": "other",
        "fields.error": "none",
        url: "/v2/"
      })
    }))

  for (const [name, format] of [["JSON", Logging.json], ["text", terminal({ NO_COLOR: "1" })]] as const) {
    it.effect(`writes what has no form as ${name} all the same`, () =>
      Effect.gen(function*() {
        const angry = {
          toString: () => {
            throw new Error("no")
          }
        }
        const lines = yield* logged(
          Effect.logInfo(angry, Symbol("one")).pipe(
            Effect.annotateLogs({
              cyclic,
              big: 1n,
              angry,
              proto: Object.create(null),
              none: undefined,
              peer: "10.0.0.7"
            })
          ),
          format
        )
        assert.strictEqual(lines.length, 1)
        assert.include(lines[0], "10.0.0.7")
        assert.include(lines[0], "Symbol(one)")
        if (format === Logging.json) assert.strictEqual(JSON.parse(lines[0] ?? "").big, "1")
      }))
  }

  it.effect("is one line for people on a terminal, which no name from the network leaves", () =>
    Effect.gen(function*() {
      const program = Effect.logWarning("a peer\nfailed\u001b[2J").pipe(
        Effect.annotateLogs({ peer: "10.0.0.7", name: "two words\r\u0007", "odd\u001b": "" })
      )
      const [line = ""] = yield* logged(program, terminal({ NO_COLOR: "1" }))
      assert.match(
        line,
        /^\d\d:\d\d:\d\d WARN {2}a peer failed\\x1b\[2J peer=10\.0\.0\.7 name="two words \\\\x07" odd\\x1b=""\n$/
      )
      const [coloured = ""] = yield* logged(program, terminal({ TERM: "xterm" }))
      assert.include(coloured, "\u001b[33mWARN \u001b[0m")
      const [dumb] = yield* logged(program, terminal({ TERM: "dumb" }))
      assert.strictEqual(dumb?.slice(8), line.slice(8))
    }))
})
