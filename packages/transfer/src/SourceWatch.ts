/**
 * Looks after the source of a body while it is moved: it fails when the source is silent or slow and the client waits for it,
 * and is meant to race `move`. Time in which the source waits for the client counts for nothing.
 */
import { Effect } from "effect"
import type { Progress } from "./Progress.ts"

/** Limits of a source. The caller makes the errors, since it knows the name of the source. */
export interface SourceLimits<E> {
  /** Longest silence. */
  readonly stallMillis: number
  readonly stalled: (waitedMillis: number) => E
  /** Speeds that are judged, each over a time of its own. */
  readonly paces: ReadonlyArray<Pace<E>>
}

export interface Pace<E> {
  /** A speed is told each time that the client has waited for so long. */
  readonly windowMillis: number
  /** Why a speed in bytes per second is too little; undefined where it is not. */
  readonly judge: (bytesPerSecond: number) => E | undefined
}

/** Times between two looks: a part of the longest silence, and no less than costs nothing. */
const looksPerStall = 8
const leastPauseMillis = 10

/** Never succeeds. */
export const watch = <E>(
  progress: Pick<Progress, "silentMillis" | "taken" | "waitedMillis">,
  limits: SourceLimits<E>
): Effect.Effect<never, E> =>
  Effect.gen(function*() {
    const windows = limits.paces.map((pace) => ({ ...pace, taken: progress.taken, waited: progress.waitedMillis }))
    for (;;) {
      yield* Effect.sleep(Math.max(leastPauseMillis, limits.stallMillis / looksPerStall))
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
