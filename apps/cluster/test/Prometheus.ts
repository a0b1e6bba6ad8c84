/** Debian's Prometheus in the control plane, which scrapes the mirrors each second. */
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import * as Subprocess from "@spegel-ts/testing/process/Subprocess"
import { Effect, Schema } from "effect"
import { openSync } from "node:fs"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { type Cluster, eventually } from "./Cluster.ts"
import * as Steps from "./Steps.ts"

const port = 9191

/** One series of an answer. */
export interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Target {
  readonly address: string
  readonly labels: Readonly<Record<string, string>>
}

const Answer = Schema.fromJsonString(Schema.Struct({
  data: Schema.Struct({
    result: Schema.Array(Schema.Struct({
      metric: Schema.Record(Schema.String, Schema.String),
      value: Schema.Tuple([Schema.Finite, Schema.String])
    }))
  })
}))

/** Scrapes the targets while the scope is open. */
export const start = Effect.fnUntraced(function*(cluster: Cluster, targets: ReadonlyArray<Target>) {
  const directory = join(cluster.directory, "prometheus")
  const config = join(directory, "prometheus.yml")
  yield* Effect.promise(async () => {
    await mkdir(directory, { recursive: true })
    await writeFile(
      config,
      JSON.stringify({
        global: { scrape_interval: "1s" },
        scrape_configs: [{
          job_name: "spegel",
          static_configs: targets.map(({ address, labels }) => ({ targets: [address], labels }))
        }]
      })
    )
  })
  const log = openSync(join(directory, "prometheus.log"), "a")
  const [enter, ...args] = NetworkNamespace.enter(cluster.controlPlane.name)
  yield* Subprocess.start(enter, [
    ...args,
    "prometheus",
    `--config.file=${config}`,
    `--storage.tsdb.path=${join(directory, "data")}`,
    `--web.listen-address=127.0.0.1:${port}`
  ], { stdio: ["ignore", log, log] })

  /** Evaluates an expression now. */
  const query = (expression: string) =>
    cluster.controlPlane.run(
      "curl",
      "-sfG",
      `http://127.0.0.1:${port}/api/v1/query`,
      "--data-urlencode",
      `query=${expression}`
    ).pipe(
      Effect.flatMap((text) => Schema.decodeEffect(Answer)(text)),
      Effect.map(({ data }) =>
        data.result.map(({ metric, value: [, value] }): Sample => ({ labels: metric, value: Number(value) }))
      )
    )
  yield* eventually(
    "Prometheus has scraped all mirrors twice",
    "1 minute",
    Effect.filterOrFail(
      query("count_over_time(spegel_build_info[1m]) >= 2"),
      (samples) => samples.length === targets.length,
      (samples) => new Steps.NotAsPromised({ reason: `${samples.length} of ${targets.length} mirrors are scraped` })
    )
  )
  return { query }
})
