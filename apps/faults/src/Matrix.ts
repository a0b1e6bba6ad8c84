/** Every fault with every request of a pull: whether the pull succeeds, and how much later than from upstream alone. */
import { Cause, Effect, Exit } from "effect"
import { clockChanges, type Fault, type RequestKind } from "./Fault.ts"
import type * as Lane from "./Lane.ts"
import * as SettableClock from "./SettableClock.ts"

/**
 * Who else has the image: upstream alone, or a good peer too. Or, beside upstream, a second node that pulls it at the same moment, by
 * a mirror of its own.
 */
export type Company = "upstream" | "good peer" | "second node"

/** One run of a pull: a fault, the request that meets it, and the company. */
export interface Cell {
  readonly fault: Fault
  readonly kind: RequestKind
  readonly company: Company
}

export interface CellResult extends Cell {
  /** Pulls until one succeeded. */
  readonly attempts: number
  /** The duration of all of them, without the pauses between them. */
  readonly seconds: number
  /** The error of each that failed. */
  readonly errors: ReadonlyArray<string>
  readonly succeeded: boolean
  /** Requests that met the fault, and body bytes from the fault peer and from upstream. */
  readonly faulty: number
  readonly faultBytes: number
  readonly upstreamBytes: number
  /** How often the cell was run until the fault was met. */
  readonly tries: number
  /** The log of the mirror, and that of the second node's, if the cell failed. */
  readonly log: string
}

/** How much longer a fault may make a pull than one from upstream alone. */
const maxAddedSeconds = 5

/**
 * With single flight, the waits that end before containerd goes upstream (docs/single-flight.md): for three nodes that decide, and
 * for a download that nobody shows to go on, among four nodes.
 */
const singleFlightSeconds = 3 + 3 + 0.2 * Math.log2(4)

/** How much longer a pull may take than one without a mirror. */
export const maxAdded = (singleFlight: boolean): number => maxAddedSeconds + (singleFlight ? singleFlightSeconds : 0)

/** A large layer with wrong bytes fails its first pull: containerd has the bytes by the time they are known to be wrong. */
export const maxAttempts = ({ fault, kind }: Cell): number =>
  fault === "wrong bytes" && kind === "GET large layer" ? 2 : 1

/** A peer that is back has what it had: nothing of the image may come from upstream. */
const maxUpstreamBytes = ({ fault }: Cell): number => fault === "restart beside a freeze" ? 0 : Infinity

/** Shorter than the kubelet waits. */
const pauseBeforeRetry = "1 second"

/** Pulls have a limit of their own: a cell that takes longer hangs elsewhere. */
const cellLimit = "10 minutes"

/**
 * How often a cell is run until its fault is met. A lookup may find the good peer so much earlier that it alone is asked. Later
 * tries wait first, because that may last a while.
 */
const maxTries = 20
const triesWithoutPause = 6
const pauseBetweenTries = "2 seconds"

/** How often the good peer is tried until it serves again after a freeze. */
const maxTrials = 24

/**
 * Has the good peer serve an image, after which the mirror no longer holds against it that it was frozen in the cell before.
 * Gives whether all of the image came from it.
 */
const trustGood = Effect.fnUntraced(function*(lane: Lane.Lane) {
  const image = yield* lane.image()
  lane.upstream.state.blobBytes = 0
  yield* lane.shareWithGood(image)
  yield* lane.untilFound(image)
  yield* lane.pull(image, "mirror")
  const upstreamBytes = lane.upstream.state.blobBytes
  yield* lane.forget(image)
  return upstreamBytes === 0
})

/** The node with the mirror under test, and the second one if there is one. */
const pullersOf = (lane: Lane.Lane) => lane.second === undefined ? [lane] : [lane, lane.second]

/** Pulls on the node, and at the same moment on the second one if there is one, until all have succeeded. */
const pullAll = Effect.fnUntraced(function*(lane: Lane.Lane, image: Lane.Image, cell: Cell) {
  const all = pullersOf(lane)
  const errors: Array<string> = []
  let seconds = 0
  let attempts = 0
  let pending = all
  // One attempt more than is allowed shows whether the pull works at all.
  while (pending.length > 0 && attempts <= maxAttempts(cell)) {
    if (attempts++ > 0) yield* Effect.sleep(pauseBeforeRetry)
    const pulls = yield* Effect.forEach(
      pending,
      (puller) => Effect.map(puller.pull(image, "mirror"), (pull) => ({ ...pull, puller })),
      { concurrency: "unbounded" }
    )
    seconds += Math.max(...pulls.map((pull) => pull.seconds))
    const failed = pulls.filter(({ error }) => error !== undefined)
    errors.push(...failed.map(({ error = "" }) => error))
    pending = failed.map(({ puller }) => puller)
  }
  const succeeded = pending.length === 0
  const lacking = succeeded ? (yield* Effect.forEach(all, (puller) => puller.lacking(image))).flat() : []
  if (lacking.length > 0) errors.push(`containerd says that it has pulled, but lacks ${lacking.join(", ")}`)
  return { attempts, errors, lacking, seconds, succeeded }
})

const attempt = Effect.fnUntraced(function*(lane: Lane.Lane, cell: Cell) {
  if (cell.fault === "restart beside a freeze") {
    const trusted = yield* Effect.repeat(trustGood(lane), { until: (trusted) => trusted, times: maxTrials })
    if (!trusted) return yield* Effect.die(new Error("the good peer does not serve any more"))
  }
  const image = yield* lane.image()
  const logStarts = pullersOf(lane).map(({ output }) => output.stderr.length)
  yield* Effect.all([
    lane.shareWithFault(image, cell),
    cell.company === "good peer" ? lane.shareWithGood(image) : Effect.void
  ], { concurrency: "unbounded" })
  if (cell.company === "good peer") {
    yield* lane.faultPeer.awaitProviders(1)
    yield* lane.occupyGood
  }
  lane.upstream.state.blobBytes = 0
  const { attempts, errors, lacking, seconds, succeeded } = yield* pullAll(lane, image, cell)
  const upstreamBytes = lane.upstream.state.blobBytes
  yield* lane.thawGood
  const counts = yield* lane.faultPeer.stop
  yield* lane.forget(image)
  if (upstreamBytes > maxUpstreamBytes(cell)) errors.push(`${upstreamBytes} bytes came from upstream`)
  const logs = pullersOf(lane).map(({ output }, index) => output.stderr.slice(logStarts[index]))
  const met = clockChanges[cell.fault] === undefined || logs[0]?.includes(SettableClock.notice) === true
  const good = succeeded && lacking.length === 0 && attempts <= maxAttempts(cell) &&
    upstreamBytes <= maxUpstreamBytes(cell)
  return {
    ...cell,
    attempts,
    seconds,
    errors,
    succeeded: good,
    faulty: met ? counts.faulty : 0,
    faultBytes: counts.bytes,
    upstreamBytes,
    tries: 1,
    log: good ? "" : logs.map((log) => log.slice(-8000)).join("\n")
  } satisfies CellResult
}, Effect.scoped)

/** The result of a cell that could not be run; reports show it like a failed pull. */
const broken = (cell: Cell, cause: Cause.Cause<unknown>): CellResult => ({
  ...cell,
  attempts: 0,
  seconds: 0,
  errors: [`the cell could not be run: ${Cause.pretty(cause)}`],
  succeeded: false,
  faulty: 0,
  faultBytes: 0,
  upstreamBytes: 0,
  tries: 0,
  log: ""
})

/** Runs a cell until its fault was met; one whose fault was never met counts as failed. */
export const runCell = (lane: Lane.Lane, cell: Cell): Effect.Effect<CellResult> =>
  Effect.gen(function*() {
    for (let tries = 1;; tries++) {
      const result: CellResult = { ...yield* attempt(lane, cell), tries }
      if (result.faulty > 0 || !result.succeeded) return result
      if (tries === maxTries) return { ...result, succeeded: false, errors: ["the mirror never met the fault"] }
      if (tries >= triesWithoutPause) yield* Effect.sleep(pauseBetweenTries)
    }
  }).pipe(
    Effect.timeout(cellLimit),
    Effect.exit,
    Effect.flatMap((exit) =>
      Exit.isSuccess(exit)
        ? Effect.succeed(exit.value)
        : Effect.as(Effect.andThen(lane.thawGood, Effect.ignore(lane.faultPeer.stop)), broken(cell, exit.cause))
    )
  )

/** The seconds of a pull without a mirror. `inParts` says whether containerd is expected to ask for large layers in parts. */
export const plainPull = (lane: Lane.Lane, inParts: boolean): Effect.Effect<number> =>
  Effect.gen(function*() {
    const image = yield* lane.image()
    const { error, seconds } = yield* lane.pull(image, "upstream")
    const parted = lane.upstream.state.requests.some((request) => /bytes=[1-9]\d*-$/.test(request))
    yield* lane.forget(image)
    if (error !== undefined) return yield* Effect.die(new Error(`a plain pull failed: ${error}`))
    if (parted !== inParts) {
      return yield* Effect.die(new Error(`containerd ${parted ? "asked" : "did not ask"} for parts of a layer`))
    }
    return seconds
  }).pipe(Effect.orDie)
