/** What a soak prints and writes: a row for each part, the bars, and a document with the table and a plot. */
import { table } from "@spegel-ts/release/GeneratedTable"
import { Effect } from "effect"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import * as Bar from "../Bar.ts"
import * as Plot from "../Plot.ts"
import * as Growth from "./Growth.ts"
import type { Plan, Result, Row } from "./soak.ts"

const mebibyte = 1024 ** 2

const columns = ["minute", "pulls", "failed", "copies", "memory, MiB", "descriptors", "events"] as const
const widths = [6, 6, 6, 6, 11, 11]

const rangeOf = ([least, most]: readonly [number, number], unit = 1) =>
  `${Math.round(least / unit)}-${Math.round(most / unit)}`

const cells = ({ copies, descriptors, events, failed, pulls, rss, seconds }: Row): ReadonlyArray<string> => [
  (seconds / 60).toFixed(1),
  String(pulls),
  String(failed),
  copies.toFixed(2),
  rangeOf(rss, mebibyte),
  rangeOf(descriptors),
  events.join(", ")
]

const aligned = (row: ReadonlyArray<string>) =>
  row.map((cell, column) => cell.padStart(widths[column] ?? 0)).join("  ").trimEnd()

/** The titles of the columns. */
export const head = aligned(columns)

export const line = (row: Row): string => aligned(cells(row))

/** In short soaks processes have less time to settle, and may still be growing. */
const windowsOf = ({ minutes }: Plan): Growth.Windows => {
  const settle = Math.min(5 * 60, (minutes * 60) / 6)
  return { settle, window: 0.6 * settle }
}

const growths = ({ readings }: Result, plan: Plan) => Growth.of(readings, windowsOf(plan))

/** Peers reconnect by and by, and not always in the same direction. One descriptor lost in each minute would come to four times this. */
const maxDescriptors = 5

/** 0 failed pulls; memory that stays within 10 %, and no more descriptors. A soak in which no mirror lived long enough misses them. */
export const bars = (result: Result, plan: Plan): ReadonlyArray<Bar.Bar> => {
  const { totals: { failures, pulls } } = result
  const grown = growths(result, plan)
  return [
    { name: "pulls", value: pulls, bound: 1, unit: "", atLeast: true },
    { name: "failed pulls", value: failures.length, bound: 0, unit: "" },
    { name: "mirrors that lived long enough to tell", value: grown.length, bound: 1, unit: "", atLeast: true },
    { name: "growth of memory once settled", value: 100 * Growth.memory(grown), bound: 10, unit: "%" },
    { name: "growth of descriptors once settled", value: Growth.descriptors(grown), bound: maxDescriptors, unit: "" }
  ]
}

/** The totals, and each mirror's growth. */
export const summary = (result: Result, plan: Plan): string => {
  const { totals: { pulledBytes, pulls, rounds }, upstreamBytes } = result
  const { settle, window } = windowsOf(plan)
  return [
    `${pulls} pulls of ${rounds} images; upstream sent ${
      (100 * upstreamBytes / Math.max(1, pulledBytes)).toFixed(1)
    } % of the bytes.`,
    `Each mirror ${Math.round(settle)} s after its start, and at its end (${Math.round(window)} s each):`,
    ...growths(result, plan).map(({ descriptors, node, rss, seconds }) =>
      `  ${node}, ${(seconds / 60).toFixed(1)} minutes later: ${
        rss.map((bytes) => (bytes / mebibyte).toFixed(1)).join(" -> ")
      } MiB, ${descriptors.join(" -> ")} descriptors`
    )
  ].join("\n")
}

/** A line needs no more points than this. */
const maxPoints = 300

const thinned = <A>(values: ReadonlyArray<A>): ReadonlyArray<A> => {
  const step = Math.ceil(values.length / maxPoints)
  return values.filter((_, index) => index % step === 0)
}

const plot = ({ readings, rows }: Result): string => {
  const nodes = [...Map.groupBy(readings, ({ node }) => node)]
  const minutes = (seconds: number) => seconds / 60
  const panel = (name: string, of: (reading: Growth.Reading) => number): Plot.Panel => ({
    name,
    lines: nodes.map(([node, readings]) => ({
      name: node,
      points: thinned(readings).map((reading) => [minutes(reading.seconds), of(reading)] as const)
    }))
  })
  return Plot.lines("Pulls while mirrors come and go, over minutes", [
    panel("memory of each mirror, MiB", ({ rss }) => rss / mebibyte),
    panel("descriptors of each mirror", ({ descriptors }) => descriptors),
    {
      name: "times that upstream sent each image",
      lines: [{ name: "all nodes", points: rows.map(({ copies, seconds }) => [minutes(seconds), copies] as const) }]
    }
  ], "own")
}

/** Writes `soak.md` and `soak.svg` into a directory. */
export const write = Effect.fnUntraced(function*(directory: string, result: Result, plan: Plan) {
  const text = [
    "# Soak: pulls while mirrors come and go",
    "",
    `\`npm run soak -- --minutes ${plan.minutes} --write docs/measurements\` wrote this page. ${plan.nodes} nodes with real containerd`,
    "daemons (1.6, 1.7, 2.1), in network namespaces on one machine, pull new images without a pause. Meanwhile their mirrors are upgraded",
    "from the release before, restarted, lost and cut off from each other. `copies` is what upstream sent, as a multiple of the images that",
    "all nodes pulled: 1 at best, and as many as there are nodes without a mirror. A pull counts in the row in which it ends, and its bytes",
    "in those in which they come.",
    "",
    "![memory, descriptors, copies](soak.svg)",
    "",
    "```text",
    summary(result, plan),
    ...bars(result, plan).map(Bar.print),
    "```",
    "",
    table(columns, result.rows.map(cells)),
    ""
  ].join("\n")
  yield* Effect.promise(async () => {
    await mkdir(directory, { recursive: true })
    await writeFile(join(directory, "soak.md"), text)
    await Plot.write(directory, "soak", plot(result))
  })
})
