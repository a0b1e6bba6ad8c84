/** What the schedules print: a line for each, a summary, and the promises as bars. */
import * as Bar from "../Bar.ts"
import * as Promises from "./Promises.ts"
import type { Ran } from "./Run.ts"
import { kinds } from "./Schedule.ts"
import type { Plan, Result } from "./schedules.ts"

const columns = ["seed", "seconds", "copies", "gap s"] as const
const width = 8

const aligned = (cells: ReadonlyArray<string>, rest: string) =>
  `${cells.map((cell) => cell.padStart(width)).join("")}  ${rest}`.trimEnd()

/** The titles of the columns. */
export const head = aligned(columns, "events")

export const line = (ran: Ran): string =>
  aligned(
    [String(ran.schedule.seed), ran.seconds.toFixed(1), ran.copies.toFixed(2), Promises.gap(ran).toFixed(1)],
    ran.happened.map(({ isInTime, kind, node }) => `${node}: ${kind}${isInTime ? "" : " (in vain)"}`).join(", ")
  )

/** Peers connect again by and by, and not always in the same direction. */
const maxDescriptors = 8
const maxStopSeconds = 5

/** For every so many schedules, at least one event of each kind has to strike while nodes pull. */
const schedulesForAKind = 20

const inTime = ({ ran }: Result) => ran.flatMap(({ happened }) => happened).filter(({ isInTime }) => isInTime)

const sum = (values: ReadonlyArray<number>) => values.reduce((one, other) => one + other, 0)

export const bars = (result: Result, { nodes, schedules }: Plan): ReadonlyArray<Bar.Bar> => {
  const { atRest, ran } = result
  const none = (name: string, count: number): Bar.Bar => ({ name, value: count, bound: 0, unit: "" })
  const longest = (name: string, of: (ran: Ran) => number): Bar.Bar => ({
    name,
    value: Math.max(0, ...ran.map(of)),
    bound: Math.round(10 * Promises.longestWait(nodes)) / 10,
    unit: "s"
  })
  const counts = kinds.map((kind) => inTime(result).filter((event) => event.kind === kind).length)
  const stops = [...ran.flatMap(Promises.badStops), ...atRest.filter(({ code }) => code !== 0)]
  return [
    { name: "schedules", value: ran.length, bound: schedules, unit: "", atLeast: true },
    {
      name: "events of each kind while nodes pulled",
      value: Math.min(...counts),
      bound: Math.floor(schedules / schedulesForAKind),
      unit: "",
      atLeast: true
    },
    {
      name: "copies of each image that nodes took from each other",
      value: sum(ran.map(({ shared }) => shared)) / Math.max(1, ran.length),
      bound: 1,
      unit: Bar.times,
      atLeast: true
    },
    none("failed pulls", sum(ran.map((one) => Promises.failures(one).length))),
    none("bytes that came back to the node that sent them", sum(ran.map(({ rings }) => rings.length))),
    longest("longest time without a byte", Promises.gap),
    longest("longest wait of a request", Promises.wait),
    none("nodes that kept something of an image", sum(ran.map(({ left }) => left.length))),
    none("mirrors that did not stop with code 0", stops.length),
    {
      name: "longest time to stop at the end",
      value: Math.max(0, ...atRest.map(({ stopSeconds }) => stopSeconds)),
      bound: maxStopSeconds,
      unit: "s"
    },
    {
      name: "most descriptors of a mirror beyond those before",
      value: Math.max(0, ...atRest.map(({ after, before }) => after.all - before.all)),
      bound: maxDescriptors,
      unit: ""
    },
    none("descriptors of blobs and downloads at the end", sum(atRest.map(({ after }) => after.content)))
  ]
}

/** The totals, the events, and the descriptors of each mirror. */
export const summary = (result: Result): string => {
  const { atRest, ran } = result
  const pulls = ran.flatMap(({ pulls }) => pulls)
  const worst = ran.reduce<Ran | undefined>(
    (one, other) => one !== undefined && one.copies >= other.copies ? one : other,
    undefined
  )
  const happened = ran.flatMap((one) => one.happened)
  const rows = kinds.map((kind) => {
    const events = happened.filter((event) => event.kind === kind)
    return [kind, String(events.length), String(events.filter(({ isInTime }) => isInTime).length)] as const
  })
  return [
    `${ran.length} schedules, ${
      (sum(ran.map(({ seconds }) => seconds)) / Math.max(1, ran.length)).toFixed(1)
    } s each; ` +
    `${pulls.length} pulls, ${pulls.filter(({ attempts }) => attempts > 1).length} of them repeated`,
    `copies from upstream: ${
      (sum(ran.map(({ copies }) => copies)) / Math.max(1, ran.length)).toFixed(2)
    } on average, ` +
    `${worst?.copies.toFixed(2)} at worst (seed ${worst?.schedule.seed})`,
    ...[["event", "times", "while nodes pulled"] as const, ...rows].map(([kind, times, struck]) =>
      `  ${kind.padEnd(22)}${times.padStart(6)}${struck.padStart(20)}`
    ),
    ...atRest.map(({ after: { all: after }, before: { all: before }, code, node, stopSeconds }) =>
      `${node}: ${before} -> ${after} descriptors; stopped with code ${code} in ${stopSeconds.toFixed(1)} s`
    )
  ].join("\n")
}
