/** The speed that a peer owes to a client that waits for its bytes. */
import { Duration, type Effect } from "effect"
import { PeerSlow, PeerStalled } from "../../PeerError.ts"
import type { Comparison, TransportOptions } from "../../PeerTransport.ts"
import type { Progress } from "../../Progress.ts"
import * as SourceWatch from "./SourceWatch.ts"

export interface SpeedLimits {
  /** The longest silence, in milliseconds. */
  readonly stallMillis: number
  /** The lowest speed over `crawlWindowMillis`; 0 allows any. */
  readonly minBytesPerSecond: number
  readonly crawlWindowMillis: number
  /** While this is true, any speed is allowed. */
  readonly isExcused?: (() => boolean) | undefined
}

const crawlWindowMillis = 3000
/** A speed is compared with that of other peers each time the client has waited this long. */
const comparisonMillis = 1000
/** The speed of a peer that is given little patience is judged after this many times its longest silence. */
const crawlPatience = 4

export const make = ({ minPeerSpeed, stallTimeout }: TransportOptions): SpeedLimits => ({
  stallMillis: Duration.toMillis(stallTimeout),
  minBytesPerSecond: minPeerSpeed,
  crawlWindowMillis
})

/** The limits for a peer that may be silent, and slow while `isExcused`; the usual ones without that. */
export const excused = (limits: SpeedLimits, isExcused: SpeedLimits["isExcused"]): SpeedLimits =>
  isExcused === undefined ? limits : { ...limits, stallMillis: Infinity, isExcused }

/** The limits for a peer that may be silent for `patienceMillis` only. */
export const within = (limits: SpeedLimits, patienceMillis = Infinity): SpeedLimits => ({
  ...limits,
  stallMillis: Math.min(limits.stallMillis, patienceMillis),
  crawlWindowMillis: Math.min(limits.crawlWindowMillis, crawlPatience * patienceMillis)
})

/** Fails once the peer breaks a limit; never succeeds. */
export const watch = (
  peer: string,
  progress: Progress,
  { crawlWindowMillis, isExcused, minBytesPerSecond, stallMillis }: SpeedLimits,
  compare: Comparison | undefined
): Effect.Effect<never, PeerSlow | PeerStalled> => {
  const slow = (speed: number, waitedMillis: number) => ({ peer, bytesPerSecond: Math.round(speed), waitedMillis })
  return SourceWatch.watch<PeerSlow | PeerStalled>(progress, {
    stallMillis,
    stalled: () => new PeerStalled({ peer, waitedMillis: stallMillis }),
    paces: [
      {
        windowMillis: crawlWindowMillis,
        judge: (speed) =>
          speed < minBytesPerSecond && isExcused?.() !== true ? new PeerSlow(slow(speed, crawlWindowMillis)) : undefined
      },
      {
        windowMillis: comparisonMillis,
        judge: (speed) => {
          const othersBytesPerSecond = compare?.(speed)
          return othersBytesPerSecond === undefined
            ? undefined
            : new PeerSlow({ ...slow(speed, comparisonMillis), othersBytesPerSecond })
        }
      }
    ]
  })
}
