/** The two data planes, and how one is chosen. */
import type { Effect } from "effect"

/** `auto` is zero-copy where it proves itself, as `zero-copy` is: that one says so louder where it does not. */
export type DataPlaneChoice = "auto" | "zero-copy" | "portable"

export interface DataPlane {
  readonly name: "zero-copy" | "portable"
  /** Why it is portable; undefined where nothing else was asked for, and for zero-copy. */
  readonly reason: string | undefined
}

/**
 * A record that outlives the process. A fault in a foreign call ends the process, and would do so again and again: after
 * `maxLostRuns` such runs in a row, the layer is portable.
 */
export interface LostRuns {
  /** The number of runs in a row that used zero-copy and ended without `closed`. */
  readonly count: Effect.Effect<number>
  /** Zero-copy is in use from now on. */
  readonly begun: Effect.Effect<void>
  /** This run ends in good order: those before it count no more, and the next may use zero-copy. */
  readonly closed: Effect.Effect<void>
}

export const maxLostRuns = 2
