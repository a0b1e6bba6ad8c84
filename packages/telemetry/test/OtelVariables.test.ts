import { assert, describe, it } from "@effect/vitest"
import * as OtelVariables from "@spegel-ts/telemetry/internal/traces/OtelVariables"
import { Option } from "effect"
import { fileURLToPath } from "node:url"

const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318" }
const read = (environment: OtelVariables.Environment) => {
  const { complaints, traces } = OtelVariables.read({ ...endpoint, ...environment })
  assert.deepStrictEqual(complaints, [])
  return Option.getOrThrow(traces)
}

describe("OtelVariables", () => {
  it("exports nothing unless an endpoint is named, and nothing that is turned off", () => {
    const off: ReadonlyArray<OtelVariables.Environment> = [
      {},
      { OTEL_EXPORTER_OTLP_ENDPOINT: " " },
      { OTEL_SERVICE_NAME: "x", OTEL_BSP_SCHEDULE_DELAY: "wrong" },
      { OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: "http://collector:4318" },
      { ...endpoint, OTEL_SDK_DISABLED: "True", OTEL_BSP_SCHEDULE_DELAY: "wrong" },
      { ...endpoint, OTEL_TRACES_EXPORTER: "none" }
    ]
    for (const environment of off) {
      assert.deepStrictEqual(OtelVariables.read(environment), { traces: Option.none(), complaints: [] })
    }
  })

  it("names the collector for logs, whatever protocol is spoken", () => {
    const collectors: ReadonlyArray<readonly [endpoint: string, protocol: OtelVariables.Protocol, collector: string]> =
      [
        ["https://x/otlp/?a=b", "http/json", "https://x"],
        ["http://x:4317", "grpc", "http://x:4317"],
        ["x:4317", "grpc", "https://x:4317"],
        ["unix:///run/collector.sock", "grpc", "unix:///run/collector.sock"]
      ]
    for (const [url, protocol, collector] of collectors) {
      const settings = read({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: url, OTEL_EXPORTER_OTLP_PROTOCOL: protocol })
      assert.deepInclude(settings, { collector, protocol })
    }
    assert.deepInclude(read({}), { collector: "http://collector:4318", protocol: "http/protobuf", maxQueueSize: 2048 })
  })

  it("gives the SDK what it understands: trimmed, names in lower case, other variables as they are", () => {
    const { environment } = read({
      OTEL_TRACES_SAMPLER: " ParentBased_TraceIdRatio ",
      OTEL_TRACES_SAMPLER_ARG: " 0.5",
      OTEL_EXPORTER_OTLP_COMPRESSION: "GZIP",
      OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20x=, b = 2 ,",
      OTEL_EXPORTER_OTLP_CERTIFICATE: fileURLToPath(import.meta.url),
      OTEL_SPAN_EVENT_COUNT_LIMIT: "0",
      OTEL_NODE_RESOURCE_DETECTORS: "env,host",
      OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: "other",
      PATH: " "
    })
    assert.deepInclude(environment, {
      OTEL_TRACES_SAMPLER: "parentbased_traceidratio",
      OTEL_TRACES_SAMPLER_ARG: "0.5",
      OTEL_EXPORTER_OTLP_COMPRESSION: "gzip",
      OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20x=, b = 2 ,",
      OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: "other",
      PATH: " "
    })
  })

  it("complains of what cannot be used without repeating it, for it may be a secret, and leaves it out", () => {
    const wrong: ReadonlyArray<readonly [name: string, value: string, exports: boolean]> = [
      ["OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", false],
      ["OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@collector", false],
      ["OTEL_EXPORTER_OTLP_PROTOCOL", "thrift", false],
      ["OTEL_TRACES_EXPORTER", "otlp,zipkin", true],
      ["OTEL_TRACES_EXPORTER", "console", false],
      ["OTEL_SDK_DISABLED", "1", true],
      ["OTEL_EXPORTER_OTLP_INSECURE", "yes", true],
      ["OTEL_EXPORTER_OTLP_HEADERS", "secret", true],
      ["OTEL_EXPORTER_OTLP_HEADERS", "=secret", true],
      ["OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret%", true],
      // The SDK would cut it there.
      ["OTEL_EXPORTER_OTLP_HEADERS", "cookie=a;secret", true],
      ["OTEL_EXPORTER_OTLP_HEADERS", "a=secret%0d%0ab:c", true],
      ["OTEL_EXPORTER_OTLP_HEADERS", "a b=secret", true],
      ["OTEL_RESOURCE_ATTRIBUTES", "=x", true],
      ["OTEL_RESOURCE_ATTRIBUTES", "a=b=c", true],
      ["OTEL_RESOURCE_ATTRIBUTES", `a=${"b".repeat(256)}`, true],
      ["OTEL_NODE_RESOURCE_DETECTORS", "env,cloud", true],
      ["OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", true],
      ["OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/secret", true],
      ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/nowhere/secret", true],
      ["OTEL_EXPORTER_OTLP_TIMEOUT", "10s", true],
      ["OTEL_BSP_SCHEDULE_DELAY", "0", true],
      ["OTEL_BSP_EXPORT_TIMEOUT", "-1", true],
      ["OTEL_BSP_MAX_QUEUE_SIZE", "9999999999", true],
      ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0", true],
      ["OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "0", true],
      ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1", true],
      ["OTEL_TRACES_SAMPLER", "jaeger_remote", true],
      ["OTEL_TRACES_SAMPLER_ARG", "1.1", true]
    ]
    for (const [name, value, exports] of wrong) {
      const { complaints, traces } = OtelVariables.read({ ...endpoint, [name]: value })
      assert.strictEqual(complaints.length, 1, `${name}=${value}`)
      assert.isTrue(complaints[0]?.startsWith(`${name}: expected `), complaints[0])
      assert.notInclude(complaints[0], "secret")
      assert.strictEqual(Option.isSome(traces), exports, `${name}=${value}`)
      if (Option.isSome(traces) && name !== "OTEL_TRACES_EXPORTER") {
        assert.isUndefined(traces.value.environment[name], name)
      }
    }
  })
})
