/**
 * How long a pull waits for the download of another node (docs/single-flight.md). Each wait ends by this node's own clock. All durations are
 * in milliseconds.
 */

/** A source that has not answered for this long is gone. */
export const goneMillis = 2000
/** The same of a source that was sending: it is no longer busy with its start. */
export const brokenMillis = 1750
/** The longest wait in which no source shows that a download from upstream goes on, though others say that there is one. */
export const unprovedMillis = 3000
/** Between two questions to the same source, if it answers at once. */
export const askAgainMillis = 200
/** For how long a source may keep such a question, until there is something to say. */
export const holdMillis = 400
/** How often a source looks meanwhile whether there is. */
export const glanceMillis = 20
/** How long a source keeps the place of a node that it told to come. */
export const placeMillis = 1000
/** A node that decides who downloads is asked again after this time without an answer: it may be busy, and a wrong guess costs a download. */
export const decideMillis = 500
/** The same for the node to which it passes the question on, while the one that asked waits for both. */
export const passMillis = 200
/** After this time without an answer, a question is asked again: a packet may be lost. */
export const answerMillis = holdMillis + 400
/** Between two lookups of further sources. */
export const lookAgainMillis = 1000
/** A node that is to download does not wait in this time: its containerd asks its mirror again before it goes on from upstream. */
export const goMillis = 5000
/** A source that sends bytes is asked whether it is there once it has been silent for this long. */
export const silenceMillis = 500

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
