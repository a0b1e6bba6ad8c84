/**
 * Random pauses, with which many candidates cost a server little. All are milliseconds; `random` is uniform in [0, 1).
 */

/** A period and up to 1.2 periods more, which is client-go's jitter. */
export const jittered = (period: number, random: number): number => period * (1 + 1.2 * random)

/**
 * How long a candidate waits before it writes a Lease that has become free. Delays come from an exponential distribution cut
 * off at `period`, which multicast protocols use to suppress duplicate answers: most candidates draw a long delay, a few a
 * short one. Only those within a round trip of the shortest delay write; all others see the new holder first. So 50 candidates
 * and 1,000 make a few writes each, without knowing of each other.
 */
export const standBack = (period: number, random: number): number =>
  period * Math.log1p(random * Math.expm1(steepness)) / steepness

const steepness = 8

/** The pause after `failures` failures in a row, at most four periods; 0 stands for a watch that worked before it ended. */
export const backoff = (period: number, failures: number, random: number): number =>
  failures === 0 ? period * random : Math.min(period / 4 * 2 ** (failures - 1), 4 * period) * (0.5 + random / 2)
