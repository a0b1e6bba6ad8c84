/**
 * How late the event loop runs timers: by how much a tick exceeded its interval, since the last scrape. prom-client measures
 * that too, but wakes the process a hundred times a second, which is most of what an idle process costs, and counts the
 * interval itself as lag.
 */
import { Effect, type Scope } from "effect"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { Gauge, type Registry } from "prom-client"

const intervalMillis = 100
/** Milliseconds of a day, so that prom-client's own timer does next to nothing. */
export const idlePrecision = 86_400_000

/** Replaces prom-client's metrics of the lag, under the same names. The result starts the measurement afresh. */
export const register = Effect.fnUntraced(
  function*(registry: Registry): Effect.fn.Return<() => void, never, Scope.Scope> {
    const histogram = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const histogram = monitorEventLoopDelay({ resolution: intervalMillis })
        histogram.enable()
        return histogram
      }),
      (histogram) => Effect.sync(() => histogram.disable())
    )
    const lag = (nanos: number) => histogram.count === 0 ? 0 : Math.max(0, nanos / 1e9 - intervalMillis / 1000)
    const gauge = (part: string, help: string, read: () => number) => {
      const name = `nodejs_eventloop_lag_${part}_seconds`
      registry.removeSingleMetric(name)
      return new Gauge({
        name,
        help,
        registers: [registry],
        collect() {
          this.set(read())
        }
      })
    }
    gauge("min", "The least lag of the event loop since the last scrape.", () => lag(histogram.min))
    gauge("max", "The greatest lag of the event loop since the last scrape.", () => lag(histogram.max))
    gauge("mean", "The mean lag of the event loop since the last scrape.", () => lag(histogram.mean))
    gauge(
      "stddev",
      "The standard deviation of the lag of the event loop since the last scrape.",
      () => histogram.count === 0 ? 0 : histogram.stddev / 1e9
    )
    for (const percentile of [50, 90, 99]) {
      gauge(
        `p${percentile}`,
        `The ${percentile}th percentile of the lag of the event loop since the last scrape.`,
        () => lag(histogram.percentile(percentile))
      )
    }
    return () => histogram.reset()
  }
)
