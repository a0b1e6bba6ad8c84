/** A clock whose wall time can be set wrong, as by a bad time server. Its monotonic time goes on as before. */
import { type Clock, Effect } from "effect"

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
