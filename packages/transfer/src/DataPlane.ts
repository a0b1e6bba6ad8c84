/** The two ways to move bodies, and how one is chosen. */
import type { Effect } from "effect"

/**
 * Both `auto` and `zero-copy` take zero-copy if it proves itself at start, and portable otherwise; `zero-copy` then logs a
 * warning, `auto` a line at INFO.
 */
export type DataPlaneChoice = "auto" | "zero-copy" | "portable"

/** The way that bodies move now. */
export interface DataPlane {
  readonly name: "zero-copy" | "portable"
  /** Why zero-copy is not in use; undefined if it is, or was not asked for. */
  readonly reason: string | undefined
}

/**
 * A record that outlives the process. A fault in a foreign call ends the process, and might do so again and again: after
 * `maxLostRuns` such runs in a row the layer is portable.
 */
export interface LostRuns {
  /** The number of runs in a row that used zero-copy and ended without `closed`. */
  readonly count: Effect.Effect<number>
  /** Zero-copy is in use from now on. */
  readonly begun: Effect.Effect<void>
  /** This run ends in good order: earlier ones no longer count, and the next may use zero-copy. */
  readonly closed: Effect.Effect<void>
}

/** After this many lost runs in a row zero-copy is not used. */
export const maxLostRuns = 2
