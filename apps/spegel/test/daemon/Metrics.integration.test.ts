import { assert, describe, it } from "@effect/vitest"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as PullSpans from "@spegel-ts/registry/PullSpans"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as Prerequisite from "@spegel-ts/testing/kubernetes/Prerequisite"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { temporary } from "@spegel-ts/testing/node/Upstream"
import { Effect, Schedule } from "effect"
import { spawnSync } from "node:child_process"
import { globSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../../../..", import.meta.url))
const read = (path: string) => readFileSync(`${root}/${path}`, "utf8")

/** What docs/metrics.md says: `name type label,label`. */
const documented = [...read("docs/metrics.md").matchAll(/^\| `(\w+)` *\| (\w+) *\| ([^|]*)\|/gm)]
  .map(([, name = "", type = "", labels = ""]) => ({
    name,
    type,
    labels: [...labels.matchAll(/`(\w+)`/g)].map(([, label = ""]) => label).toSorted()
  }))
const names = new Set(documented.map(({ name }) => name))

const ofTheProcess = /^(process|nodejs)_/
const histogramParts = /_(bucket|sum|count)$/

/** The families of an exposition, those of the process left out. */
const familiesOf = (exposition: string) =>
  [...exposition.matchAll(/^# TYPE (\w+) (\w+)$/gm)].flatMap(([, name = "", type = ""]) => {
    if (ofTheProcess.test(name)) return []
    const labels = new Set<string>()
    for (const line of exposition.split("\n")) {
      const [, sample = "", pairs = ""] = /^(\w+)(?:\{(.*)\})? \S+$/.exec(line) ?? []
      const family = type === "histogram" ? sample.replace(histogramParts, "") : sample
      if (family !== name) continue
      for (const [, label = ""] of pairs.matchAll(/(\w+)="/g)) if (label !== "le") labels.add(label)
    }
    return [{ name, type, labels: [...labels].toSorted() }]
  })

const noPromtool = Prerequisite.lacking(
  process.env,
  Prerequisite.inPath("promtool", process.env) ? undefined : "needs promtool (Debian's prometheus)"
)
const note = noPromtool === undefined ? "" : ` (skipped: ${noPromtool})`

describe("metrics", { timeout: 120_000 }, () => {
  /** What a daemon that holds an image tells before anything was asked of it. */
  const exposition = Effect.gen(function*() {
    const ports = yield* MirrorPorts.free
    const layout = yield* temporary
    yield* RandomImage.write({
      writer: yield* OciLayoutWriter.make({ root: layout }),
      reference: { registry: "held.example", repository: "team/app", tag: "v1" },
      layerSizes: [1]
    })
    yield* SpegelProcess.start([
      "registry",
      ...MirrorPorts.flags("127.0.0.2", ports),
      `--data-dir=${yield* temporary}`,
      `--store=oci-layout:${layout}`,
      "--mirrored-registries=https://named.example"
    ], { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${yield* freePort}` })
    const url = `http://127.0.0.2:${ports.metrics}/metrics`
    return yield* Effect.tryPromise(() => fetch(url).then((response) => response.text())).pipe(
      // Published in the background, soon after the start.
      Effect.filterOrFail(
        (text) => text.includes("spegel_router_requests_total") && text.includes("held.example"),
        () => "not yet" as const
      ),
      Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 400 })
    )
  })

  it.live(`are there from the start as documented, and clean by promtool${note}`, () =>
    Effect.gen(function*() {
      const text = yield* exposition
      const byName = (a: { readonly name: string }, b: { readonly name: string }) => a.name < b.name ? -1 : 1
      // A response's size is known with the first one.
      const families = familiesOf(text)
      assert.deepStrictEqual(
        families.toSorted(byName),
        documented.filter(({ name }) => name !== "http_response_size_bytes").toSorted(byName)
      )
      for (const registry of ["named.example", "held.example"]) {
        assert.include(text, `spegel_mirror_requests_total{registry="${registry}",cache="miss"} 0\n`)
        assert.include(text, `spegel_mirror_circuit_openings_total{registry="${registry}"} 0\n`)
      }
      assert.match(text, /^spegel_build_info\{version="[^"]+",nodejs="[^"]+"\} 1$/m)
      if (noPromtool !== undefined) return
      const { error, status, stderr, stdout } = spawnSync("promtool", ["check", "metrics"], { input: text })
      assert.strictEqual(`${stdout.toString()}${stderr.toString()}`, "")
      assert.deepStrictEqual([status, error], [0, undefined])
    }))

  it("are all documented, and none is documented or shown on the dashboard that is not there", () => {
    const declared = globSync("{packages,apps}/*/src/**/*.ts", { cwd: root }).flatMap((path) =>
      [...read(path).matchAll(/Metric\.(?:counter|gauge|histogram|summary|frequency)\(\s*"(\w+)"/g)]
        .map(([, name = ""]) => name)
    )
    assert.deepStrictEqual([...new Set(declared)].toSorted(), [...names].toSorted())
    for (const path of ["README.md", "charts/spegel/dashboards/spegel.json", ...globSync("docs/*.md", { cwd: root })]) {
      for (const [name] of read(path).matchAll(/\b(?:spegel_|http_re(?:quests?|sponse)_)[a-z_]+\b(?!\*)/g)) {
        if (!name.endsWith("_")) assert.include(names, name.replace(histogramParts, ""), path)
      }
    }
  })

  it("come with spans that are all documented", () => {
    const spans = [...read("docs/tracing.md").matchAll(/^\| `([^`]+)`(?:, kind `\w+`)? *\|/gm)].map(([, name]) => name)
    const within = new Set(spans.filter((name) => name !== undefined && !/^(GET|OTEL_)/.test(name)))
    assert.deepStrictEqual(within, new Set(PullSpans.names))
  })
})
