/** The members of the network that this node knows. */
import type { PeerFacts } from "@spegel-ts/router/Peer"
import type { Facts } from "./Facts.ts"

export interface PeerView extends PeerFacts {
  /** Why it is asked after others, or not at all, in words that follow "it"; absent if it is not paused. */
  readonly pausedBecause?: string
  /** For how many milliseconds more; absent if it is not paused, or until it is forgotten. */
  readonly pausedMillis?: number
}

export const of = ({ activity: { paused }, peers }: Facts): ReadonlyArray<PeerView> => {
  const pauses = new Map(paused.map((pause) => [pause.id, pause]))
  return peers.map((peer) => {
    const pause = pauses.get(peer.id)
    if (pause === undefined) return peer
    const { millis, reason } = pause
    return { ...peer, pausedBecause: reason, ...(Number.isFinite(millis) ? { pausedMillis: millis } : {}) }
  })
}
