/** The metrics of a mirror that has just started, and their text format. */
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import { Effect, Schedule } from "effect"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import * as RandomImage from "../content/RandomImage.ts"
import { freePort } from "../network/FreePort.ts"
import * as MirrorPorts from "../node/MirrorPorts.ts"
import * as SpegelProcess from "../node/SpegelProcess.ts"
import { temporary } from "../TemporaryDirectory.ts"

/** A metric with all its series. */
export interface Family {
  readonly name: string
  readonly type: string
  /** The text behind `# HELP`. */
  readonly help: string
  readonly labels: ReadonlyArray<string>
}

/** These come from prom-client and not from the mirror. */
const ofTheProcess = /^(process|nodejs)_/
const histogramParts = /_(bucket|sum|count)$/

/** The metric of a sample: the parts of a histogram are one metric. */
export const familyOf = (sample: string, type = "histogram"): string =>
  type === "histogram" ? sample.replace(histogramParts, "") : sample

/** The mirror's own families in an exposition, sorted by name. */
export const parse = (exposition: string): ReadonlyArray<Family> => {
  const lines = exposition.split("\n")
  return [...exposition.matchAll(/^# TYPE (\w+) (\w+)$/gm)].flatMap(([, name = "", type = ""]) => {
    if (ofTheProcess.test(name)) return []
    const labels = new Set<string>()
    for (const line of lines) {
      const [, sample = "", pairs = ""] = /^(\w+)(?:\{(.*)\})? \S+$/.exec(line) ?? []
      if (familyOf(sample, type) !== name) continue
      for (const [, label = ""] of pairs.matchAll(/(\w+)="/g)) if (label !== "le") labels.add(label)
    }
    const help = lines.find((line) => line.startsWith(`# HELP ${name} `))?.slice(`# HELP ${name} `.length) ?? ""
    return [{ name, type, help, labels: [...labels].toSorted() }]
  }).toSorted((one, other) => one.name < other.name ? -1 : 1)
}

/** The name of the registry that the mirror is told to mirror, and of the one whose image it holds. */
export const registries = { named: "named.example", held: "held.example" }

/** Starts a mirror that holds an image, has a cluster key and exports traces; gives its exposition, before and after its first answer. */
export const scrape = Effect.gen(function*() {
  const ports = yield* MirrorPorts.free
  const layout = yield* temporary
  const key = join(yield* temporary, "key")
  yield* Effect.promise(() => writeFile(key, generate()))
  yield* RandomImage.write({
    writer: yield* OciLayoutWriter.make({ root: layout }),
    reference: { registry: registries.held, repository: "team/app", tag: "v1" },
    layerSizes: [1]
  })
  yield* SpegelProcess.start([
    "registry",
    ...MirrorPorts.flags("127.0.0.2", ports),
    `--data-dir=${yield* temporary}`,
    `--store=oci-layout:${layout}`,
    `--cluster-key-file=${key}`,
    `--mirrored-registries=https://${registries.named}`
  ], { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${yield* freePort}` })
  const get = (url: string) => Effect.tryPromise(() => fetch(url).then((response) => response.text()))
  /** Metrics appear in the background, soon after their cause. */
  const until = (...words: ReadonlyArray<string>) =>
    get(`http://127.0.0.2:${ports.metrics}/metrics`).pipe(
      Effect.filterOrFail((text) => words.every((word) => text.includes(word)), () => "not yet" as const),
      Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 400 })
    )
  const atStart = yield* until("spegel_router_requests_total", registries.held)
  yield* get(`http://127.0.0.2:${ports.registry}/v2/`)
  // The size of answers is known with the first one.
  return { atStart, afterAnswer: yield* until("http_response_size_bytes") }
}).pipe(Effect.scoped)
