/**
 * What `/metrics` answers: the metrics that the packages keep with Effect, and those of the process (CPU, memory, event
 * loop) from prom-client, in the Prometheus text format 0.0.4.
 */
import { Context, Effect, Layer } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { collectDefaultMetrics, Registry } from "prom-client"
import * as EventLoopLag from "./internal/metrics/EventLoopLag.ts"

/** Gauges named as counters are; the same ones without `_total` have the figures by type. */
const misnamed = ["nodejs_active_handles_total", "nodejs_active_requests_total", "nodejs_active_resources_total"]

export class MetricsEndpoint extends Context.Service<MetricsEndpoint, {
  readonly contentType: string
  readonly render: Effect.Effect<string>
}>()("@spegel-ts/telemetry/MetricsEndpoint") {
  static readonly layer: Layer.Layer<MetricsEndpoint> = Layer.effect(
    this,
    Effect.gen(function*() {
      const registry = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const registry = new Registry()
          collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: EventLoopLag.restingPrecision })
          for (const name of misnamed) registry.removeSingleMetric(name)
          return registry
        }),
        (registry) => Effect.sync(() => registry.clear())
      )
      const beginAnew = yield* EventLoopLag.register(registry)
      return {
        contentType: registry.contentType,
        render: Effect.gen(function*() {
          const own = yield* PrometheusMetrics.format()
          const process = yield* Effect.promise(() => registry.metrics())
          beginAnew()
          return `${own}\n${process}`
        })
      }
    })
  )
}
