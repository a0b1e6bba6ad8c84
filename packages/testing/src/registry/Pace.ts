/** A token bucket that many senders share: together they send no faster than a link would. */

/** How far it may run ahead of the link, in milliseconds. */
const burstMillis = 10

export interface Pace {
  /** The milliseconds to wait before so many bytes are sent, at a time in milliseconds. Callers take turns in the order of their calls. */
  readonly take: (bytes: number, now: number) => number
}

/** Bytes per second; Infinity for no bound. */
export const make = (bytesPerSecond: number): Pace => {
  /** When the link has sent all that was taken. */
  let free = -Infinity
  return {
    take: (bytes, now) => {
      free = Math.max(free, now) + (1000 * bytes) / bytesPerSecond
      return Math.max(0, free - now - burstMillis)
    }
  }
}
