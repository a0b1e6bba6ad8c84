/**
 * Downloads in progress, as nodes tell each other of them in the header `x-spegel-in-progress`.
 *
 * A request has `accepted <id> <start>`: the node with this id takes the content of a download too, as far as it has come, from
 * byte `start` on. Answers from a download, and refusals because it has not come far enough or has followers enough, have its state:
 * `<origin> <bytes> <age of the last evidence, in milliseconds> <ids of followers>`.
 */
import * as NodeIds from "./NodeIds.ts"

export const inProgressHeader = "x-spegel-in-progress"

/** A request for content of a download. */
export interface Asked {
  /** The id of the node that asks. */
  readonly asker: string
  /** The first byte that it wants. */
  readonly start: number
}

/**
 * Where the bytes of a download come from: `upstream` if this node's mirror has left it to the upstream registry, `peers` if other
 * nodes send them or may do so. `stalled`: none have come for much longer than before.
 */
export type Origin = "upstream" | "peers" | "stalled"

export interface DownloadState {
  readonly origin: Origin
  /** How many bytes have been written. */
  readonly written: number
  /** How long ago this node last knew, by its own sources, that a download from upstream goes on. In milliseconds. */
  readonly ageMillis: number
  /** The nodes to ask instead, since they get the download from here and this node sends it to no more; empty if it does. */
  readonly instead: ReadonlyArray<string>
}

/** A node sends a download to fewer. */
const maxIds = 8
const askedForm = new RegExp(`^accepted (${NodeIds.nodeId}) ([0-9]{1,15})$`)
const stateForm = new RegExp(`^(upstream|peers|stalled) ([0-9]{1,15}) ([0-9]{1,6})(${NodeIds.upTo(maxIds)})$`)
const oldest = 999_999

export const printAsked = ({ asker, start }: Asked): string => `accepted ${asker} ${start}`

/** Undefined for anything else. */
export const parseAsked = (header: unknown): Asked | undefined => {
  const [, asker, start] = typeof header === "string" ? askedForm.exec(header) ?? [] : []
  return asker === undefined ? undefined : { asker, start: Number(start) }
}

export const print = ({ ageMillis, instead, origin, written }: DownloadState): string =>
  [origin, written, Math.min(oldest, Math.round(ageMillis)), ...instead].join(" ")

/** Undefined for anything else. */
export const parse = (header: string | undefined): DownloadState | undefined => {
  const [, origin, written, age, ids = ""] = stateForm.exec(header ?? "") ?? []
  return origin === undefined
    ? undefined
    : { origin: origin as Origin, written: Number(written), ageMillis: Number(age), instead: NodeIds.of(ids) }
}
