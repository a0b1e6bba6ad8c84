/**
 * Traces of requests, exported over OTLP/HTTP where the standard `OTEL_*` variables name a collector. Where they do not,
 * no exporter is loaded and no span is made.
 */
import { Effect, Layer, Option, References } from "effect"
import { Tracer } from "effect/Tracer"
import * as OtelEnvironment from "./OtelEnvironment.ts"
import type { ExporterOptions } from "./SpanExporter.ts"

export interface TracingOptions extends ExporterOptions {
  readonly environment: OtelEnvironment.Environment
  /** Resource attributes of the process; those of the environment go before them. */
  readonly attributes: Readonly<Record<string, string>>
}

/** Logs what of the environment cannot be used. */
export const layer = (options: TracingOptions): Layer.Layer<never> =>
  Layer.unwrap(Effect.gen(function*() {
    const { complaints, traces } = OtelEnvironment.read(options.environment, {
      "service.version": options.version,
      ...options.attributes
    })
    yield* Effect.forEach(complaints, (complaint) => Effect.logWarning(complaint), { discard: true })
    if (Option.isNone(traces)) return Layer.succeed(References.TracerEnabled, false)
    const settings = traces.value
    const OtlpTracer = yield* Effect.promise(() => import("./OtlpTracer.ts"))
    yield* Effect.logInfo("exporting traces").pipe(
      Effect.annotateLogs({ collector: settings.url.origin, protocol: settings.protocol })
    )
    return Layer.effect(Tracer, OtlpTracer.make(settings, options))
  }))
