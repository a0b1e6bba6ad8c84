/** How a download grows, and when it is stalled. Times are as `MonotonicTime.millis` has them. */
import type { DownloadState, Origin } from "./DownloadState.ts"

export interface Growth {
  readonly origin: Exclude<Origin, "stalled">
  /** When the last request for it was answered. */
  readonly since: number
  /** When it was last seen to have grown, and its size in bytes then. */
  grewAt: number
  written: number
}

/** How often containerd writes what it has got, in bytes. */
const step = 1024 * 1024

/**
 * Without growth for so many milliseconds a download is stalled: its first bytes take longer, and a slow upstream grows in slow steps. One
 * that peers send may have lost its source, and gets time to find another.
 */
const limits = { first: 5000, least: { upstream: 2000, peers: 3000 }, most: 10_000, steps: 2.5 } as const

/** When a download from upstream was last known to go on: by its own growth, or by that of others, which `evidence` is about. */
export const shownAt = (growth: Growth | undefined, evidence: number, now: number): number => {
  if (growth === undefined) return evidence
  return growth.origin === "upstream" ? now : Math.max(evidence, growth.written > 0 ? growth.grewAt : -Infinity)
}

const dry = { leastBytes: 2 * step, ageMillis: 1000 } as const

/**
 * Whether a download that peers send has little more than the `start` that another node has, and may get no more itself: both have lost the
 * same source, and one must not keep the other from finding a new one.
 */
export const isDry = (
  { ageMillis, origin, written }: Pick<DownloadState, "ageMillis" | "origin" | "written">,
  start: number
): boolean => origin === "peers" && ageMillis > dry.ageMillis && written < start + dry.leastBytes

/** Whether a node with this state of a download of `size` bytes sends it from `start` on. Who takes bytes is always behind who gives them. */
export const isSent = (state: DownloadState, start: number, size: number): boolean =>
  state.written > start && state.instead.length === 0 && !(state.written < size && isDry(state, start))

/**
 * The origin of a download with `written` bytes. One that this process left to nobody may wait for other nodes itself. `upstreamAt` is when
 * any download from upstream last grew here: while upstream sends other layers, the first bytes of this one may wait for them.
 */
export const originOf = (growth: Growth | undefined, written: number, now: number, upstreamAt = -Infinity): Origin => {
  if (growth === undefined) return "peers"
  const { grewAt, origin, since } = growth
  const meanStep = (grewAt - since) / Math.max(1, written / step)
  const limit = written === 0
    ? limits.first
    : Math.min(limits.most, Math.max(limits.least[origin], limits.steps * meanStep))
  const lastSign = written === 0 ? Math.max(grewAt, upstreamAt) : grewAt
  return written === growth.written && now - lastSign > limit ? "stalled" : origin
}
