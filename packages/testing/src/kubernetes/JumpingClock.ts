/** A clock whose wall time can be set wrong, as by a bad time server. Its monotonic time is not affected. */
import { type Clock, Effect } from "effect"

/** Makes one from `clock`. `jump` sets its wall time off by so many milliseconds from that of `clock`. */
export const make = (clock: Clock.Clock) => {
  let offsetMillis = 0
  const millis = () => clock.currentTimeMillisUnsafe() + offsetMillis
  const nanos = () => clock.currentTimeNanosUnsafe() + BigInt(offsetMillis) * 1_000_000n
  const jumping: Clock.Clock = {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: clock.monotonicTimeNanos,
    sleep: (duration) => clock.sleep(duration)
  }
  return {
    clock: jumping,
    jump: (millis: number) => {
      offsetMillis = millis
    }
  }
}
