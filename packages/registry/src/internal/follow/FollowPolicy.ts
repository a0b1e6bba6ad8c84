/**
 * How long a pull waits for the download of another node (docs/single-flight.md). Each wait ends by this node's own clock. All durations are
 * in milliseconds.
 */

/** A source that has not answered for this long is gone. */
export const goneMillis = 2000
/** The longest wait in which no source shows that its download goes on, though others say that there is one. */
export const unprovedMillis = 3000
/** Between two questions whether a download has come further. */
export const askAgainMillis = 200
/** Between two lookups of further sources. */
export const lookAgainMillis = 500

/** How much later each further node gives up, and how much later if a source shows that its download goes on. */
const stepMillis = 200
const stepWithSourceMillis = 500

/**
 * When nodes that wait for the same download give up: one of them goes first and downloads from upstream, and the others find
 * it. `turn` is how many doublings of nodes go before this one.
 */
export const turnOf = (nodes: number, random: number): number => Math.max(0, Math.log2(nodes) + Math.log2(1 - random))

export const patienceMillis = (turn: number): number => stepMillis * turn
/** `longestMillis` is `MirrorOptions.inProgressWait`. */
export const maxWaitMillis = (longestMillis: number, turn: number): number =>
  longestMillis + stepWithSourceMillis * turn
