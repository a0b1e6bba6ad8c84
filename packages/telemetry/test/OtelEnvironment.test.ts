import { assert, describe, it } from "@effect/vitest"
import * as OtelEnvironment from "@spegel-ts/telemetry/OtelEnvironment"
import { Option, Redacted } from "effect"
import * as Tracer from "effect/Tracer"

const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318" }
const read = (environment: OtelEnvironment.Environment) => OtelEnvironment.read(environment, { "host.name": "node-1" })
const settings = (environment: OtelEnvironment.Environment) => {
  const { complaints, traces } = read({ ...endpoint, ...environment })
  assert.deepStrictEqual(complaints, [])
  return Option.getOrThrow(traces)
}

describe("OtelEnvironment", () => {
  it("exports nothing unless an endpoint is named, and nothing that is turned off", () => {
    const off: ReadonlyArray<OtelEnvironment.Environment> = [
      {},
      { OTEL_EXPORTER_OTLP_ENDPOINT: " " },
      { OTEL_SERVICE_NAME: "x" },
      { OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: "http://collector:4318" },
      { ...endpoint, OTEL_SDK_DISABLED: "True" },
      { ...endpoint, OTEL_TRACES_EXPORTER: "none" }
    ]
    for (const environment of off) {
      assert.deepStrictEqual(read(environment), { traces: Option.none(), complaints: [] })
    }
  })

  it("takes the base endpoint with its path, and the one for traces as it is", () => {
    const url = (environment: OtelEnvironment.Environment) => settings(environment).url.href
    assert.strictEqual(url({}), "http://collector:4318/v1/traces")
    assert.strictEqual(url({ OTEL_EXPORTER_OTLP_ENDPOINT: "https://x/otlp/" }), "https://x/otlp/v1/traces")
    assert.strictEqual(url({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://y:1" }), "http://y:1/")
    assert.strictEqual(url({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://y:1/in?a=b" }), "http://y:1/in?a=b")
  })

  it("has the specification's defaults", () => {
    const { attributes, exportTimeout, gzip, headers, maxBatchSize, maxQueueSize, protocol, scheduleDelay, timeout } =
      settings({ OTEL_TRACES_EXPORTER: "otlp" })
    assert.deepStrictEqual(
      { exportTimeout, gzip, maxBatchSize, maxQueueSize, protocol, scheduleDelay, timeout },
      {
        exportTimeout: 30_000,
        gzip: false,
        maxBatchSize: 512,
        maxQueueSize: 2048,
        protocol: "http/protobuf",
        scheduleDelay: 5000,
        timeout: 10_000
      }
    )
    assert.deepStrictEqual(attributes, { "service.name": "spegel", "host.name": "node-1" })
    assert.deepStrictEqual(Redacted.value(headers), {})
  })

  it("prefers what is said for traces to what is said for all signals", () => {
    const { gzip, headers, protocol, timeout } = settings({
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",
      OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "http/json",
      OTEL_EXPORTER_OTLP_COMPRESSION: "none",
      OTEL_EXPORTER_OTLP_TRACES_COMPRESSION: "gzip",
      OTEL_EXPORTER_OTLP_TIMEOUT: "1",
      OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: "2",
      OTEL_EXPORTER_OTLP_HEADERS: "a=1",
      OTEL_EXPORTER_OTLP_TRACES_HEADERS: "authorization=Bearer%20x%3Dy, b = 2 ,"
    })
    assert.deepStrictEqual({ gzip, protocol, timeout }, { gzip: true, protocol: "http/json", timeout: 2 })
    assert.deepStrictEqual(Redacted.value(headers), { authorization: "Bearer x=y", b: "2" })
  })

  it("names the service and its resource", () => {
    const attributes = (environment: OtelEnvironment.Environment) => settings(environment).attributes
    const resource = { OTEL_RESOURCE_ATTRIBUTES: "service.name=mirror,k8s.node.name=n%2C1,host.name=other" }
    assert.deepStrictEqual(attributes(resource), {
      "service.name": "mirror",
      "k8s.node.name": "n,1",
      "host.name": "other"
    })
    assert.strictEqual(attributes({ ...resource, OTEL_SERVICE_NAME: "spegel-2" })["service.name"], "spegel-2")
  })

  it("complains of what cannot be used, without repeating it where it may be a secret", () => {
    const wrong: ReadonlyArray<readonly [name: string, value: string, exports: boolean]> = [
      ["OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", false],
      ["OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@collector", false],
      ["OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", false],
      ["OTEL_TRACES_EXPORTER", "otlp,zipkin", true],
      ["OTEL_TRACES_EXPORTER", "console", false],
      ["OTEL_EXPORTER_OTLP_HEADERS", "secret", true],
      ["OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret%", true],
      ["OTEL_EXPORTER_OTLP_HEADERS", "a=secret%0d%0ab:c", true],
      ["OTEL_EXPORTER_OTLP_HEADERS", "a b=secret", true],
      ["OTEL_RESOURCE_ATTRIBUTES", "=x", true],
      ["OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", true],
      ["OTEL_EXPORTER_OTLP_TIMEOUT", "10s", true],
      ["OTEL_BSP_SCHEDULE_DELAY", "0", true],
      ["OTEL_BSP_EXPORT_TIMEOUT", "-1", true],
      ["OTEL_BSP_MAX_QUEUE_SIZE", "9999999999", true],
      ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "x", true],
      ["OTEL_TRACES_SAMPLER", "jaeger_remote", true],
      ["OTEL_TRACES_SAMPLER_ARG", "1.1", true]
    ]
    for (const [name, value, exports] of wrong) {
      const { complaints, traces } = read({ ...endpoint, [name]: value })
      assert.strictEqual(complaints.length, 1, name)
      assert.isTrue(complaints[0]?.startsWith(`${name}: expected `), complaints[0])
      assert.notInclude(complaints[0], "secret")
      assert.strictEqual(Option.isSome(traces), exports, `${name}=${value}`)
    }
  })

  describe("sampler", () => {
    const low = `${"a".repeat(19)}0000000000001`
    const high = `${"a".repeat(19)}fffffffffffff`
    const parent = (sampled: boolean) => Tracer.externalSpan({ traceId: low, spanId: "b".repeat(16), sampled })
    const decisions = (environment: OtelEnvironment.Environment) => {
      const { sampler } = settings(environment)
      return [
        sampler(low, undefined),
        sampler(high, undefined),
        sampler(high, parent(false)),
        sampler(low, parent(true))
      ]
    }

    it("decides by the parent, else by the share of traces, as the variables say", () => {
      const half = { OTEL_TRACES_SAMPLER_ARG: "0.5" }
      const all = [true, true, false, true]
      assert.deepStrictEqual(decisions({}), all)
      assert.deepStrictEqual(decisions({ OTEL_TRACES_SAMPLER: "parentbased_always_on" }), all)
      assert.deepStrictEqual(decisions({ OTEL_TRACES_SAMPLER: "parentbased_traceidratio" }), all)
      assert.deepStrictEqual(
        decisions({ OTEL_TRACES_SAMPLER: "parentbased_traceidratio", ...half }),
        [false, true, false, true]
      )
      assert.deepStrictEqual(decisions({ OTEL_TRACES_SAMPLER: "parentbased_always_off" }), [false, false, false, true])
      assert.deepStrictEqual(decisions({ OTEL_TRACES_SAMPLER: "always_on" }), [true, true, true, true])
      assert.deepStrictEqual(decisions({ OTEL_TRACES_SAMPLER: "always_off" }), [false, false, false, false])
      assert.deepStrictEqual(decisions({ OTEL_TRACES_SAMPLER: "traceidratio", ...half }), [false, true, true, false])
      assert.deepStrictEqual(
        decisions({ OTEL_TRACES_SAMPLER: "traceidratio", OTEL_TRACES_SAMPLER_ARG: "0" }),
        [false, false, false, false]
      )
    })
  })
})
