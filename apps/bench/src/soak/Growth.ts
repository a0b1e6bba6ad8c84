/** Whether a process grows: its memory and descriptors once it has settled, beside those at its end. */
import { percentile } from "../Statistics.ts"

/** A process at one moment. */
export interface Reading {
  readonly node: string
  readonly pid: number
  /** Seconds since the soak began. */
  readonly seconds: number
  /** Resident memory in bytes. */
  readonly rss: number
  readonly descriptors: number
}

export interface Growth {
  readonly node: string
  /** Seconds between the two windows. */
  readonly seconds: number
  /** Medians of the two windows, in bytes. */
  readonly rss: readonly [settled: number, end: number]
  /** The least of the two windows: connections of pulls come and go. */
  readonly descriptors: readonly [settled: number, end: number]
}

export interface Windows {
  /** How long a process takes to settle, in seconds. */
  readonly settle: number
  /** The length of the windows, in seconds. Memory falls with each major collection, every one to two minutes: a window holds some. */
  readonly window: number
}

const median = (values: ReadonlyArray<number>) => percentile(values, 0.5)
const least = (values: ReadonlyArray<number>) => Math.min(...values)

const growthOf = (readings: ReadonlyArray<Reading>, { settle, window }: Windows): ReadonlyArray<Growth> => {
  const [first] = readings
  const last = readings.at(-1)
  if (first === undefined || last === undefined) return []
  const settledAt = first.seconds + settle
  const endsAt = last.seconds - window
  const settled = readings.filter(({ seconds }) => seconds >= settledAt && seconds < settledAt + window)
  const end = readings.filter(({ seconds }) => seconds > endsAt)
  // A process that ended sooner says nothing about growth.
  if (settled.length === 0 || endsAt < settledAt + settle) return []
  const both = (of: (reading: Reading) => number, summary: typeof median) =>
    [summary(settled.map(of)), summary(end.map(of))] as const
  return [{
    node: first.node,
    seconds: endsAt - settledAt,
    rss: both(({ rss }) => rss, median),
    descriptors: both(({ descriptors }) => descriptors, least)
  }]
}

/** The growth of each process that lived long enough: twice the time that it takes to settle, and the windows. */
export const of = (readings: ReadonlyArray<Reading>, windows: Windows): ReadonlyArray<Growth> =>
  [...Map.groupBy(readings, ({ node, pid }) => `${node} ${pid}`).values()].flatMap((one) => growthOf(one, windows))

/** The largest growth of memory, as a share of what it was. */
export const memory = (growths: ReadonlyArray<Growth>): number =>
  Math.max(...growths.map(({ rss: [settled, end] }) => end / settled - 1))

/** The largest growth of descriptors. */
export const descriptors = (growths: ReadonlyArray<Growth>): number =>
  Math.max(...growths.map(({ descriptors: [settled, end] }) => end - settled))
