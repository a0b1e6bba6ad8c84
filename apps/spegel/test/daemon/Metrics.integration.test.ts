import { assert, describe, it } from "@effect/vitest"
import * as PullSpans from "@spegel-ts/registry/PullSpans"
import * as Documents from "@spegel-ts/release/Documents"
import * as Prerequisite from "@spegel-ts/testing/kubernetes/Prerequisite"
import * as Exposition from "@spegel-ts/testing/telemetry/Exposition"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { globSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../../../..", import.meta.url))
const read = (path: string) => readFileSync(`${root}/${path}`, "utf8")

/** The names in docs/metrics.md. */
const names = new Set(
  [...read("docs/metrics.md").matchAll(/^\| `(\w+)` *\| (?:counter|gauge|histogram) *\|/gm)].map(([, name = ""]) =>
    name
  )
)

const noPromtool = Prerequisite.lacking(
  process.env,
  Prerequisite.inPath("promtool", process.env) ? undefined : "needs promtool (Debian's prometheus)"
)
const note = noPromtool === undefined ? "" : ` (skipped: ${noPromtool})`

describe("metrics", { timeout: 120_000 }, () => {
  it.live(`are there from the start as documented, and clean by promtool${note}`, () =>
    Effect.gen(function*() {
      const { afterAnswer, atStart } = yield* Exposition.scrape
      yield* Documents.updateMetrics({ root, check: true }, afterAnswer)
      // A response's size is known with the first one.
      assert.deepStrictEqual(
        Exposition.parse(atStart),
        Exposition.parse(afterAnswer).filter(({ name }) => name !== "http_response_size_bytes")
      )
      for (const registry of Object.values(Exposition.registries)) {
        assert.include(atStart, `spegel_mirror_requests_total{registry="${registry}",cache="miss"} 0\n`)
        assert.include(atStart, `spegel_mirror_circuit_openings_total{registry="${registry}"} 0\n`)
      }
      assert.match(atStart, /^spegel_build_info\{version="[^"]+",nodejs="[^"]+"\} 1$/m)
      if (noPromtool !== undefined) return
      const { error, status, stderr, stdout } = spawnSync("promtool", ["check", "metrics"], { input: atStart })
      assert.strictEqual(`${stdout.toString()}${stderr.toString()}`, "")
      assert.deepStrictEqual([status, error], [0, undefined])
    }))

  it("are all documented, and none is documented or shown on the dashboard that is not there", () => {
    const declared = globSync("{packages,apps}/*/src/**/*.ts", { cwd: root }).flatMap((path) =>
      [...read(path).matchAll(/\b(?:counter|gauge|histogram|summary|frequency)\(\s*"((?:spegel|http)_\w+)"/g)]
        .map(([, name = ""]) => name)
    )
    assert.deepStrictEqual([...new Set(declared)].toSorted(), [...names].toSorted())
    const charts = [
      "charts/spegel/README.md",
      "charts/spegel/alerts/spegel.yaml",
      "charts/spegel/dashboards/spegel.json"
    ]
    for (const path of ["README.md", ...charts, ...globSync("docs/**/*.md", { cwd: root })]) {
      for (const [name] of read(path).matchAll(/\b(?:spegel_|http_re(?:quests?|sponse)_)[a-z_]+\b(?!\*)/g)) {
        if (!name.endsWith("_")) assert.include(names, Exposition.familyOf(name), path)
      }
    }
  })

  it("come with spans that are all documented", () => {
    const spans = [...read("docs/tracing.md").matchAll(/^\| `([^`]+)`(?:, kind `\w+`)? *\|/gm)].map(([, name]) => name)
    const within = new Set(spans.filter((name) => name !== undefined && !/^(GET|OTEL_)/.test(name)))
    assert.deepStrictEqual(within, new Set(PullSpans.names))
  })
})
