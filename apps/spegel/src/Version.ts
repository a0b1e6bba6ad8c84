/** The version of spegel-ts, the same in every package.json and in the chart. */
export const version = "0.1.0"

/** Set by rolldown.config.ts when the bundle is made. */
declare const SPEGEL_COMMIT: string

/** The commit that the bundle was made of, with `-dirty` where the tree had changes; `unknown` for sources that run as they are. */
export const commit = typeof SPEGEL_COMMIT === "undefined" ? "unknown" : SPEGEL_COMMIT
