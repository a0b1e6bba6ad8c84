/** The version that runs, as Prometheus expects it: a gauge that is always 1, whose labels can be joined to other metrics. */
import * as MetricFamily from "@spegel-ts/background/MetricFamily"
import { type Effect, Metric } from "effect"

const buildInfo = MetricFamily.make(Metric.gauge("spegel_build_info", { description: "1, with what runs as labels" }))

/** Publishes the program's version, and that of Node.js without its `v`. */
export const publish = (version: string, nodeVersion: string): Effect.Effect<void> =>
  Metric.update(buildInfo.of({ version, nodejs: nodeVersion }), 1)
