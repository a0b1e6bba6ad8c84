/**
 * Traces of requests, exported over OTLP by the OpenTelemetry SDK if the standard `OTEL_*` variables name a collector.
 * Otherwise the SDK is not loaded and no span is made.
 */
import { Effect, Layer, Option, References } from "effect"
import { Tracer } from "effect/Tracer"
import type { SdkOptions } from "./internal/traces/OpenTelemetry.ts"
import * as OtelVariables from "./internal/traces/OtelVariables.ts"

/** The variables to configure traces from, the spans to export, and the attributes of the process. */
export interface TracingOptions extends SdkOptions {
  /** Usually `process.env`. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Names of the spans within a request that are exported, beside the request's own. Default: all. */
  readonly spanNames?: ReadonlySet<string>
}

/** A tracer for the program. Variables that cannot be used are named at WARN; the program starts all the same. */
export const layer = (options: TracingOptions): Layer.Layer<never> =>
  Layer.unwrap(Effect.gen(function*() {
    const { complaints, traces } = OtelVariables.read(options.environment)
    yield* Effect.forEach(complaints, (complaint) => Effect.logWarning(complaint), { discard: true })
    if (Option.isNone(traces)) return Layer.succeed(References.TracerEnabled, false)
    const { collector, protocol } = traces.value
    const [OpenTelemetry, RequestTracer] = yield* Effect.promise(() =>
      Promise.all([import("./internal/traces/OpenTelemetry.ts"), import("./internal/traces/RequestTracer.ts")])
    )
    yield* Effect.logInfo("exporting traces").pipe(Effect.annotateLogs({ collector, protocol }))
    return Layer.effect(
      Tracer,
      Effect.flatMap(
        OpenTelemetry.make(traces.value, options),
        (tracer) => RequestTracer.make(tracer, options.spanNames)
      )
    )
  }))
