/**
 * Monotonic time, for durations and for how long something is remembered. The wall clock is set by people and by NTP: a pause
 * measured by it can last for hours, or not at all. All values are whole milliseconds.
 */
import { Clock, Effect } from "effect"

const toMillis = (nanos: bigint): number => Number(nanos / 1_000_000n)

/** Milliseconds since an arbitrary moment. Only differences between two values have a meaning. */
export const millis: Effect.Effect<number> = Effect.map(Clock.monotonicTimeNanos, toMillis)

/** The same, read at once from `clock`. */
export const millisUnsafe = (clock: Clock.Clock): number => toMillis(clock.monotonicTimeNanosUnsafe())
