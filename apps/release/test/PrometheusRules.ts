/** Alerts, as Prometheus' own test of rules makes them of series. */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as HelmChart from "./HelmChart.ts"

/** Samples each minute: `0x120` is 0 for two hours, `0+1x120` rises by 1. */
export type Series = Readonly<Record<string, string>>

/** Runs promtool's test of rules: after `hours`, `alert` is there with these labels, or not at all. */
export const test = async (
  rules: string,
  { alert, expected, hours = 2, series }: {
    readonly alert: string
    readonly series: Series
    readonly expected: ReadonlyArray<object>
    readonly hours?: number
  }
): Promise<HelmChart.Finished> => {
  const directory = await mkdtemp(join(tmpdir(), "spegel-alerts-"))
  try {
    const file = join(directory, "test.yaml")
    await writeFile(
      file,
      JSON.stringify({
        rule_files: [rules],
        evaluation_interval: "1m",
        tests: [{
          interval: "1m",
          input_series: Object.entries(series).map(([series, values]) => ({ series, values })),
          promql_expr_test: [],
          alert_rule_test: [{ eval_time: `${hours}h`, alertname: alert, exp_alerts: expected }]
        }]
      })
    )
    return await HelmChart.run("promtool", ["test", "rules", file])
  } finally {
    await rm(directory, { recursive: true })
  }
}
