/**
 * Time for what is remembered and for how long something took. The wall clock is set by people and by NTP: a pause
 * measured by it can last for hours, or not at all.
 */
import { Clock, Effect } from "effect"

const toMillis = (nanos: bigint): number => Number(nanos / 1_000_000n)

/** Milliseconds since an arbitrary moment; only differences mean something. */
export const millis: Effect.Effect<number> = Effect.map(Clock.monotonicTimeNanos, toMillis)

/** As `millis`, at once. */
export const millisUnsafe = (clock: Clock.Clock): number => toMillis(clock.monotonicTimeNanosUnsafe())
