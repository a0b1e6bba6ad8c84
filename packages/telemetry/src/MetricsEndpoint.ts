/**
 * The body of `/metrics`: the metrics that the packages keep with Effect, and those of the process (CPU, memory, event loop)
 * from prom-client, in the Prometheus text format 0.0.4.
 */
import { Context, Effect, Layer } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { collectDefaultMetrics, Registry } from "prom-client"
import * as EventLoopLag from "./internal/metrics/EventLoopLag.ts"

/** Gauges that are named like counters. The gauges without `_total` show the same numbers, by type. */
const misnamed = ["nodejs_active_handles_total", "nodejs_active_requests_total", "nodejs_active_resources_total"]

/** Renders the metrics of this process for a scrape. The program serves the text at a path of its choice. */
export class MetricsEndpoint extends Context.Service<MetricsEndpoint, {
  /** The value of `content-type`. */
  readonly contentType: string
  /** Reads all metrics. The figures of the event loop's lag start afresh with each call. */
  readonly render: Effect.Effect<string>
}>()("@spegel-ts/telemetry/MetricsEndpoint") {
  /** Measures the process and its event loop while the layer is open. */
  static readonly layer: Layer.Layer<MetricsEndpoint> = Layer.effect(
    this,
    Effect.gen(function*() {
      const registry = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const registry = new Registry()
          collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: EventLoopLag.idlePrecision })
          for (const name of misnamed) registry.removeSingleMetric(name)
          return registry
        }),
        (registry) => Effect.sync(() => registry.clear())
      )
      const resetLag = yield* EventLoopLag.register(registry)
      return {
        contentType: registry.contentType,
        render: Effect.gen(function*() {
          const own = yield* PrometheusMetrics.format()
          const process = yield* Effect.promise(() => registry.metrics())
          resetLag()
          return `${own}\n${process}`
        })
      }
    })
  )
}
