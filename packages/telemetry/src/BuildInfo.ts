/** The version that runs, as Prometheus expects it: a gauge that is always 1, whose labels can be joined to other metrics. */
import { type Effect, Metric } from "effect"

const buildInfo = Metric.gauge("spegel_build_info", { description: "1, with what runs as labels" })

/** Publishes the program's version, and that of Node.js without its `v`. */
export const publish = (version: string, nodeVersion: string): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(buildInfo, { version, nodejs: nodeVersion }), 1)
