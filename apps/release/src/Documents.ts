/** The documents with generated parts. */
import * as Exposition from "@spegel-ts/testing/telemetry/Exposition"
import { Effect } from "effect"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import * as ChartValues from "./ChartValues.ts"
import * as GeneratedTable from "./GeneratedTable.ts"
import * as MetricsReference from "./MetricsReference.ts"
import * as SettingsReference from "./SettingsReference.ts"

interface Options {
  /** The root of the repository. */
  readonly root: string
  /** Only check that the documents are up to date; fails with the first that is not. */
  readonly check: boolean
}

/** Writes docs/configuration.md and the chart's README, for which the sources alone are needed. */
export const update = Effect.fnUntraced(function*({ check, root }: Options) {
  const path = (name: string) => join(root, name)
  yield* GeneratedTable.update({ path: path("docs/configuration.md"), text: SettingsReference.render(), check })
  const values = yield* Effect.promise(() => readFile(path("charts/spegel/values.yaml"), "utf8"))
  yield* GeneratedTable.update({ path: path("charts/spegel/README.md"), text: ChartValues.render(values), check })
})

/** Writes docs/metrics.md from `exposition`, the metrics of a mirror that has answered a request. */
export const updateMetrics = ({ check, root }: Options, exposition: string) =>
  GeneratedTable.update({
    path: join(root, "docs/metrics.md"),
    text: MetricsReference.render(Exposition.parse(exposition)),
    check
  })

/** Writes all of them; starts the bundled mirror to have its metrics. */
export const updateAll = Effect.fnUntraced(function*(options: Options) {
  yield* update(options)
  const { afterAnswer } = yield* Exposition.scrape
  yield* updateMetrics(options, afterAnswer)
})
