/**
 * Nodes with real containerd daemons pull new images without a pause, while their mirrors are upgraded from the release before,
 * restarted, lost and cut off from each other.
 */
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import * as Herd from "../herd/herd.ts"
import { since } from "../herd/Pulls.ts"
import * as Image from "../Image.ts"
import type * as Growth from "./Growth.ts"
import { Mirrors } from "./Mirrors.ts"
import * as Readings from "./Readings.ts"
import * as Rounds from "./Rounds.ts"
import * as Timeline from "./Timeline.ts"

export interface Plan {
  readonly nodes: number
  readonly minutes: number
  /** The main module of the release before. */
  readonly before: string
  /** More flags of the mirrors. */
  readonly flags: ReadonlyArray<string>
  /** The directory for the logs of the mirrors. */
  readonly logs: string
}

/** A part of the soak: from the row before to `seconds`. */
export interface Row {
  readonly seconds: number
  readonly events: ReadonlyArray<string>
  readonly pulls: number
  readonly failed: number
  /** Bytes from upstream, as a multiple of what it would send if each image came from it once. */
  readonly copies: number
  /** Of all mirrors, at the end of the part: the least and the most. */
  readonly rss: readonly [number, number]
  readonly descriptors: readonly [number, number]
}

export interface Result {
  readonly rows: ReadonlyArray<Row>
  readonly readings: ReadonlyArray<Growth.Reading>
  readonly totals: Rounds.Totals
  readonly upstreamBytes: number
}

/** Of all links, in KB/s. */
const linkSpeed = 50_000
const sampleEvery = "1 second"
const rowsOfSoak = 30

const range = (values: ReadonlyArray<number>): readonly [number, number] =>
  values.length === 0 ? [0, 0] : [Math.min(...values), Math.max(...values)]

/** What rows are made of, at one moment. */
interface Mark {
  readonly pulls: number
  readonly failed: number
  readonly pulledBytes: number
  readonly upstreamBytes: number
}

/** Runs it; `onRow` is called for each part. */
export const run = Effect.fnUntraced(function*(plan: Plan, onRow: (row: Row) => Effect.Effect<void>) {
  const { nodes, upstream } = yield* Herd.startNodes({ nodes: plan.nodes, upstreamSpeed: linkSpeed, linkSpeed })
  const image = { flags: Image.flags, environment: Image.compiledIn(yield* temporary) }
  const mirrors = new Mirrors(nodes, yield* Effect.scope, { logs: plan.logs, node: image })
  yield* Effect.forEach(nodes, (node) => mirrors.start(node, { flags: [], hasKey: false, program: plan.before }), {
    concurrency: "unbounded",
    discard: true
  })

  const duration = plan.minutes * 60
  const begun = performance.now()
  const now = () => since(begun)
  const totals: Rounds.Totals = { rounds: 0, pulls: 0, pulledBytes: 0, failures: [] }
  const readings: Array<Growth.Reading> = []
  const rows: Array<Row> = []
  let events: Array<string> = []
  const bytesSent = Effect.map(upstream.counts, ({ blobBytes }) => blobBytes)
  let last: Mark = { pulls: 0, failed: 0, pulledBytes: 0, upstreamBytes: 0 }

  const endRow = Effect.fnUntraced(function*(lately: ReadonlyArray<Growth.Reading>) {
    const mark: Mark = {
      pulls: totals.pulls,
      failed: totals.failures.length,
      pulledBytes: totals.pulledBytes,
      upstreamBytes: yield* bytesSent
    }
    const images = (mark.pulledBytes - last.pulledBytes) / nodes.length
    const row: Row = {
      seconds: now(),
      events,
      pulls: mark.pulls - last.pulls,
      failed: mark.failed - last.failed,
      copies: images === 0 ? 0 : (mark.upstreamBytes - last.upstreamBytes) / images,
      rss: range(lately.map(({ rss }) => rss)),
      descriptors: range(lately.map(({ descriptors }) => descriptors))
    }
    events = []
    last = mark
    rows.push(row)
    yield* onRow(row)
  })
  const sample = Effect.gen(function*() {
    const lately = yield* Readings.take(mirrors, now())
    readings.push(...lately)
    if (now() >= ((rows.length + 1) * duration) / rowsOfSoak) yield* endRow(lately)
  })

  const happening = Timeline.run(
    Timeline.of({ mirrors, flags: plan.flags, pauseMillis: (1000 * duration) / 200 }),
    duration,
    now,
    ({ name }) => Effect.sync(() => events.push(name))
  )
  const pulling = Rounds.run({ mirrors, upstream, totals, isOver: () => now() >= duration })
  // What fails in the events ends the soak, and so does what fails in the samples.
  yield* Effect.raceFirst(
    Effect.all([happening, pulling], { concurrency: "unbounded", discard: true }),
    Effect.forever(Effect.andThen(sample, Effect.sleep(sampleEvery)))
  )
  return { rows, readings, totals, upstreamBytes: yield* bytesSent } satisfies Result
}, Effect.scoped)
