/**
 * Watches the source of a body and fails when it is silent or slow while the client waits for it; meant to race the move.
 * Time in which the source waits for the client does not count.
 */
import { Effect } from "effect"
import type { Progress } from "../../Progress.ts"

/** Limits of a source. The caller makes the errors, because it knows the source's name. */
export interface SourceLimits<E> {
  /** The longest silence allowed, in milliseconds. */
  readonly stallMillis: number
  readonly stalled: (waitedMillis: number) => E
  /** Speeds to judge, each over a window of its own. */
  readonly paces: ReadonlyArray<Pace<E>>
}

export interface Pace<E> {
  /** A speed is judged each time the client has waited this long, in milliseconds. */
  readonly windowMillis: number
  /** Why this speed in bytes per second is too low; undefined if it is not. */
  readonly judge: (bytesPerSecond: number) => E | undefined
}

/** The time between two looks is this part of the longest silence, within these bounds. */
const looksPerStall = 8
const leastPauseMillis = 10
const longestPauseMillis = 1000

/** Never succeeds. */
export const watch = Effect.fnUntraced(function*<E>(
  progress: Pick<Progress, "silentMillis" | "taken" | "waitedMillis">,
  limits: SourceLimits<E>
): Effect.fn.Return<never, E> {
  const windows = limits.paces.map((pace) => ({ ...pace, taken: progress.taken, waited: progress.waitedMillis }))
  for (;;) {
    yield* Effect.sleep(Math.max(leastPauseMillis, Math.min(longestPauseMillis, limits.stallMillis / looksPerStall)))
    const { silentMillis, taken, waitedMillis } = progress
    if (silentMillis >= limits.stallMillis) return yield* Effect.fail(limits.stalled(silentMillis))
    for (const window of windows) {
      const waited = waitedMillis - window.waited
      if (waited < window.windowMillis) continue
      const error = window.judge((taken - window.taken) / (waited / 1000))
      if (error !== undefined) return yield* Effect.fail(error)
      window.taken = taken
      window.waited = waitedMillis
    }
  }
})
