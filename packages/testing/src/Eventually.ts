/** Waiting for what happens in the background: for a condition, never for a time. */
import { Effect, Schedule } from "effect"

/** Looks every 5 ms, for 20 s. */
export const polling = { schedule: Schedule.spaced("5 millis"), times: 4000 }

/** Waits until the condition holds; fails the test if it does not within 20 s. */
export const eventually = (condition: (() => boolean) | Effect.Effect<boolean>): Effect.Effect<void> =>
  (Effect.isEffect(condition) ? condition : Effect.sync(condition)).pipe(
    Effect.repeat({ ...polling, until: (holds) => holds }),
    Effect.flatMap((holds) => holds ? Effect.void : Effect.die(new Error("it has not come about within 20 s")))
  )
