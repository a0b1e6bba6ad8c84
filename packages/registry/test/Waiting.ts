/** Waiting for what happens in the background: for a condition, never for a time. */
import type { PullEvent, PullLog } from "@spegel-ts/registry/PullLog"
import { Effect, Schedule } from "effect"

const polling = { schedule: Schedule.spaced("5 millis"), times: 4000 }

/** Waits until the condition holds; fails the test where it does not within 20 s. */
export const eventually = (condition: (() => boolean) | Effect.Effect<boolean>): Effect.Effect<void> =>
  (Effect.isEffect(condition) ? condition : Effect.sync(condition)).pipe(
    Effect.repeat({ ...polling, until: (holds) => holds }),
    Effect.flatMap((holds) => holds ? Effect.void : Effect.die(new Error("it has not come about within 20 s")))
  )

/** The requests recorded, once there are `count`: a client has its answer a moment before the ledger has it. */
export const untilRecorded = (
  ledger: PullLog["Service"],
  count: number
): Effect.Effect<ReadonlyArray<PullEvent>> =>
  ledger.recent.pipe(
    Effect.repeat({ ...polling, until: (events) => events.length >= count }),
    Effect.tap((events) =>
      events.length >= count ? Effect.void : Effect.die(new Error(`only ${events.length} of ${count} were recorded`))
    )
  )
