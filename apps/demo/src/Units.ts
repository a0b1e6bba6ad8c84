/** Quantities in words. */

export const mebi = (bytes: number): string =>
  bytes > 0 && bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`

export const seconds = (millis: number): string => `${(millis / 1000).toFixed(millis < 1000 ? 2 : 1)} s`

/** An offset or a count, with its thousands apart. */
export const count = (number: number): string => number.toLocaleString("en")

/** The upstream's link: megabits per second and milliseconds, each 0 for no bound. */
export interface Link {
  readonly megabits: number
  readonly latencyMillis: number
}

export const isShaped = ({ latencyMillis, megabits }: Link): boolean => megabits > 0 || latencyMillis > 0

export const link = (of: Link): string =>
  isShaped(of)
    ? `shaped to ${
      [
        ...(of.megabits > 0 ? [`${of.megabits} Mbit/s`] : []),
        ...(of.latencyMillis > 0 ? [`${of.latencyMillis} ms`] : [])
      ].join(", ")
    }`
    : "not shaped"
