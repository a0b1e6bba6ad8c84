/** How fast candidates try, so that many of them cost a server little. Milliseconds; `random` is uniform in [0, 1). */

/** client-go's jitter: up to 1.2 periods more. */
export const jittered = (period: number, random: number): number => period * (1 + 1.2 * random)

/**
 * How long a candidate stands back from a lease that has become free. Delays are drawn from an exponential distribution cut
 * off at `period`, as multicast protocols do to suppress answers: most candidates draw a long one, a few a short one, and
 * however many there are, only those write that drew within a round trip of the shortest; all others see the new holder
 * first. 50 candidates and 1,000 both make a few writes, without knowing of each other.
 */
export const standBack = (period: number, random: number): number =>
  period * Math.log1p(random * Math.expm1(steepness)) / steepness

const steepness = 8

/** Pause after the n-th failure in a row (from 0, which is a watch that worked for long): at most four periods. */
export const backoff = (period: number, failures: number, random: number): number =>
  failures === 0 ? period * random : Math.min(period / 4 * 2 ** (failures - 1), 4 * period) * (0.5 + random / 2)
