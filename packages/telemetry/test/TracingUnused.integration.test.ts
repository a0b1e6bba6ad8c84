import { assert, describe, it } from "@effect/vitest"
import * as Tracing from "@spegel-ts/telemetry/Tracing"
import { Duration, Effect } from "effect"
import { createRequire } from "node:module"

/** Packages of OpenTelemetry that this process has loaded. They are CommonJS modules, unless they are bundled. */
const loaded = () =>
  Object.keys(createRequire(import.meta.url).cache).filter((path) =>
    /@opentelemetry\/(?:sdk|otlp|exporter|resources)/.test(path)
  )

const tracedWith = (environment: Tracing.TracingOptions["environment"]) =>
  Effect.provide(
    Effect.void,
    Tracing.layer({ environment, attributes: {}, version: "1", flushTimeout: Duration.seconds(1) })
  )

describe("Tracing without a collector", () => {
  it.live("loads no OpenTelemetry SDK", () =>
    Effect.gen(function*() {
      yield* tracedWith({})
      yield* tracedWith({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1", OTEL_SDK_DISABLED: "true" })
      yield* tracedWith({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1", OTEL_TRACES_EXPORTER: "none" })
      assert.deepStrictEqual(loaded(), [])
      yield* tracedWith({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1" })
      assert.isNotEmpty(loaded())
    }))
})
