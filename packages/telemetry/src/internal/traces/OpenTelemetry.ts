/** The OpenTelemetry SDK, set up for traces. Loaded only if there is a collector. */
import type { Tracer } from "@opentelemetry/api"
import * as Resources from "@opentelemetry/resources"
import { BasicTracerProvider, BatchSpanProcessor } from "@opentelemetry/sdk-trace-base"
import { type Duration, Effect, type Scope } from "effect"
import * as CollectorConnections from "./CollectorConnections.ts"
import * as ExportHealth from "./ExportHealth.ts"
import type { Environment, Protocol, TraceExport } from "./OtelVariables.ts"

export interface SdkOptions {
  readonly version: string
  /** Resource attributes of the process; `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` go before them. */
  readonly attributes: Readonly<Record<string, string>>
  /** How long what is left may take to be sent when the scope closes. */
  readonly flushTimeout: Duration.Duration
}

/** The value of `service.name` if no variable sets it. */
const defaultServiceName = "spegel"
/** Characters of an attribute: request lines and header values are as long as a client likes. */
const defaultValueLength = "1024"

const loadExporter = (protocol: Protocol) => {
  switch (protocol) {
    case "http/protobuf":
      return import("@opentelemetry/exporter-trace-otlp-proto")
    case "http/json":
      return import("@opentelemetry/exporter-trace-otlp-http")
    case "grpc":
      return import("@opentelemetry/exporter-trace-otlp-grpc")
  }
}

/** By their names in `OTEL_NODE_RESOURCE_DETECTORS`. */
const detectors = {
  env: Resources.envDetector,
  host: Resources.hostDetector,
  os: Resources.osDetector,
  process: Resources.processDetector,
  serviceinstance: Resources.serviceInstanceIdDetector
}

/** The SDK reads `process.env` itself, but only while its parts are made. */
const withEnvironment = <A>(environment: Environment, make: () => A): A => {
  const own = process.env
  process.env = environment
  try {
    return make()
  } finally {
    process.env = own
  }
}

const resourceOf = (names: ReadonlyArray<string>, attributes: Readonly<Record<string, string>>): Resources.Resource =>
  Resources.defaultResource()
    .merge(Resources.resourceFromAttributes({ "service.name": defaultServiceName, ...attributes }))
    .merge(Resources.detectResources({
      detectors: Object.entries(detectors)
        .filter(([name]) => names.includes(name) || names.includes("all"))
        .map(([, detector]) => detector)
    }))

/** A tracer that exports while the scope is open, and what is left when it closes. */
export const make = Effect.fnUntraced(function*(
  settings: TraceExport,
  { attributes, flushTimeout, version }: SdkOptions
): Effect.fn.Return<Tracer, never, Scope.Scope> {
  const { environment, maxBatchSize, maxQueueSize, protocol } = settings
  const health = yield* ExportHealth.make(settings)
  const { OTLPTraceExporter } = yield* Effect.promise(() => loadExporter(protocol))
  const { provider } = yield* Effect.acquireRelease(
    Effect.sync(() =>
      withEnvironment({
        ...environment,
        OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT: environment["OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"] ?? defaultValueLength
      }, () => {
        const connections = protocol === "grpc" ? undefined : CollectorConnections.make(health.connectionFailed)
        const exporter = new OTLPTraceExporter({
          userAgent: `spegel-ts/${version}`,
          // When the scope closes the SDK sends the whole queue at once.
          concurrencyLimit: 1 + Math.ceil(maxQueueSize / maxBatchSize),
          ...(connections === undefined ? {} : { httpAgentOptions: connections.agent })
        })
        const processor = new BatchSpanProcessor(health.watch(exporter), {
          maxQueueSize,
          maxExportBatchSize: maxBatchSize
        })
        return {
          connections,
          provider: new BasicTracerProvider({
            resource: resourceOf(settings.detectors, { "service.version": version, ...attributes }),
            spanProcessors: [health.bound(processor)]
          })
        }
      })
    ),
    ({ connections, provider }) =>
      Effect.andThen(health.close(() => provider.shutdown(), flushTimeout), Effect.sync(() => connections?.close()))
  )
  return provider.getTracer("spegel-ts", version)
})
