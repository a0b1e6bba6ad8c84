/** Which build runs, as Prometheus has it: a gauge that is always 1, whose labels are joined to other metrics. */
import { type Effect, Metric } from "effect"

const buildInfo = Metric.gauge("spegel_build_info", { description: "1, with what runs as labels" })

/** Publishes the version of the program, and that of Node.js without its `v`. */
export const publish = (version: string, nodeVersion: string): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(buildInfo, { version, nodejs: nodeVersion }), 1)
