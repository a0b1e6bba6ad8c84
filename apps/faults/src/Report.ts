/** The figures of a run as a table and as data. */
import type { EmptyMirror } from "./EmptyMirror.ts"
import { faults, requestKinds } from "./Fault.ts"
import { type CellResult, type Company, maxAdded } from "./Matrix.ts"
import { companies, type Part } from "./Plan.ts"

/** A part with its results. */
export interface PartResult extends Omit<Part, "cells"> {
  /** Durations of pulls without a mirror, which are made between the others. */
  readonly plainSeconds: ReadonlyArray<number>
  readonly cells: ReadonlyArray<CellResult>
}

/** The middle value; 0 if there are none. */
export const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

/** How much longer the cell took than a plain pull of the same part. */
export const addedSeconds = (part: PartResult, cell: CellResult): number => cell.seconds - median(part.plainSeconds)

/** The pull succeeded, but too late. */
export const isLate = (part: PartResult, cell: CellResult): boolean =>
  cell.succeeded && addedSeconds(part, cell) > maxAdded(part.singleFlight)

/** The pull succeeded in time. */
export const isMet = (part: PartResult, cell: CellResult): boolean => cell.succeeded && !isLate(part, cell)

const columnOf = ({ client, flavour }: PartResult) => `${flavour.name} ${client}`

const textOf = (part: PartResult, cell: CellResult): string => {
  const added = addedSeconds(part, cell)
  const seconds = `${added < 0 ? "-" : "+"}${Math.abs(added).toFixed(2)}`
  return !cell.succeeded ? "FAILED" : `${seconds}${cell.attempts > 1 ? " 2nd" : ""}${isMet(part, cell) ? "" : " LATE"}`
}

const line = (cells: ReadonlyArray<string>) => `| ${cells.join(" | ")} |`

const titles: Readonly<Record<Company, string>> = {
  upstream: "The fault peer is the only peer with the image; upstream has it too",
  "good peer": "The fault peer, a good peer and upstream have the image",
  "second node": "The fault peer and upstream have the image, and two nodes pull it at the same moment"
}

/** Seconds over a plain pull, for the parts with the same company. */
const table = (company: Company, parts: ReadonlyArray<PartResult>): string => {
  const inCompany = parts.filter((part) => part.company === company)
  const rows = faults.flatMap((fault) =>
    requestKinds.map((kind) => {
      const texts = inCompany.map((part) => {
        const cell = part.cells.find((cell) => cell.fault === fault && cell.kind === kind)
        return cell === undefined ? "" : textOf(part, cell)
      })
      return [fault as string, kind].concat(texts)
    })
  ).filter(([_fault, _kind, ...texts]) => texts.some((text) => text !== ""))
  return [
    `### ${titles[company]}`,
    "",
    line(["fault", "request", ...inCompany.map(columnOf)]),
    line(["---", "---", ...inCompany.map(() => "---:")]),
    ...rows.map(line),
    line(["plain pull, seconds", "", ...inCompany.map(({ plainSeconds }) => median(plainSeconds).toFixed(2))]),
    ""
  ].join("\n")
}

/** The cost of each fault over all cells, in seconds. */
const summary = (parts: ReadonlyArray<PartResult>): string => {
  const rows = faults.flatMap((fault) => {
    const added = parts.flatMap((part) =>
      part.cells.filter((cell) => cell.fault === fault).map((cell) => addedSeconds(part, cell))
    )
    return added.length === 0
      ? []
      : [line([fault, String(added.length), median(added).toFixed(2), Math.max(...added).toFixed(2)])]
  })
  const beside = parts.filter(({ company }) => company === "good peer").flatMap(({ cells }) => cells)
  const takenOver = beside.filter(({ upstreamBytes }) => upstreamBytes === 0).length
  return [
    "### Seconds over a plain pull, by fault",
    "",
    line(["fault", "cells", "median", "worst"]),
    line(["---", "---:", "---:", "---:"]),
    ...rows,
    "",
    ...(beside.length === 0
      ? []
      : [`Beside a good peer ${takenOver} of ${beside.length} pulls took no blob's byte from upstream.`, ""])
  ].join("\n")
}

/** Seconds over a plain pull, as Markdown: by fault, then one table for each company that the fault peer is in. */
export const tables = (parts: ReadonlyArray<PartResult>): string =>
  `${summary(parts)}\n` +
  companies.filter((company) => parts.some((part) => part.company === company)).map((company) => table(company, parts))
    .join("\n")

/** The cost of empty mirrors, as Markdown. */
export const emptyMirrorTable = (results: ReadonlyArray<EmptyMirror>): string =>
  [
    "### The mirror has nothing",
    "",
    line(["containerd", "pairs", "plain, seconds", "mirror, seconds", "ratio", "added, ms"]),
    line(["---", "---:", "---:", "---:", "---:", "---:"]),
    ...results.map(({ addedSeconds, mirrorSeconds, name, pairs, plainSeconds, ratio }) =>
      line([
        name,
        String(pairs),
        plainSeconds.toFixed(3),
        mirrorSeconds.toFixed(3),
        ratio.toFixed(3),
        (addedSeconds * 1000).toFixed(0)
      ])
    ),
    ""
  ].join("\n")

/** The failures of a part, with the messages of containerd and of the mirror. */
export const failures = (part: PartResult): string =>
  part.cells.filter((cell) => !isMet(part, cell)).map((cell) =>
    [
      `${columnOf(part)}, ${cell.fault}, ${cell.kind}, beside ${cell.company}: ${textOf(part, cell)} ` +
      `(${cell.attempts} pulls in ${cell.seconds.toFixed(2)} s)`,
      ...cell.errors.map((error) => `  containerd: ${error}`),
      ...cell.log.trim().split("\n").map((text) => `  mirror: ${text}`)
    ].join("\n")
  ).join("\n\n")
