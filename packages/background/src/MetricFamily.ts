/**
 * A metric with labels, which Prometheus calls a metric family: one series for each set of label values. How metrics are
 * declared is decided in docs/decisions/0008-metrics-and-layers.md.
 */
import { Effect, Metric } from "effect"

/** Values of the labels by label name. All sets of one family name the same labels, in the same order. */
export type Labels = Readonly<Record<string, string>>

/** The series of one metric. `Input` is the value that an update takes, `State` the value that a scrape reads. */
export interface MetricFamily<in Input, out State> {
  /** The series with these label values. It is made once: making a series costs more than updating it. */
  readonly of: (labels: Labels) => Metric.Metric<Input, State>
  /** The series whose label values are known beforehand, for `exist`. */
  readonly known: ReadonlyArray<Metric.Metric<Input, State>>
}

/** A family of `metric`. `known` are the sets of label values that are known beforehand. */
export const make = <Input, State>(
  metric: Metric.Metric<Input, State>,
  known: ReadonlyArray<Labels> = []
): MetricFamily<Input, State> => {
  const series = new Map<string, Metric.Metric<Input, State>>()
  const of = (labels: Labels) => {
    const key = Object.values(labels).join("\n")
    const made = series.get(key)
    if (made !== undefined) return made
    const one = Metric.withAttributes(metric, labels)
    series.set(key, one)
    return one
  }
  return { of, known: known.map(of) }
}

/**
 * Makes series exist with nothing counted, by reading them. Prometheus' `increase()` and `rate()` do not see the step from
 * no series to 1, and so would miss the first failure.
 */
export const exist = (series: Iterable<Metric.Metric<never, unknown>>): Effect.Effect<void> =>
  Effect.forEach(series, (one) => Metric.value(one), { discard: true })
