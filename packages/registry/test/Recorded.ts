import type { PullEvent, PullLog } from "@spegel-ts/registry/PullLog"
import { polling } from "@spegel-ts/testing/Eventually"
import { Effect } from "effect"

/** The requests recorded, once there are `count`: a client has its answer a moment before the log has it. */
export const untilRecorded = (
  log: PullLog["Service"],
  count: number
): Effect.Effect<ReadonlyArray<PullEvent>> =>
  log.recent.pipe(
    Effect.repeat({ ...polling, until: (events) => events.length >= count }),
    Effect.tap((events) =>
      events.length >= count ? Effect.void : Effect.die(new Error(`only ${events.length} of ${count} were recorded`))
    )
  )

/** The last request for some content, once it is recorded. */
export const recordedOf = (log: PullLog["Service"], content: string): Effect.Effect<PullEvent> =>
  log.recent.pipe(
    Effect.map((events) => events.find((event) => event.content === content)),
    Effect.filterOrFail((event) => event !== undefined, () => new Error(`no request for ${content} was recorded`)),
    Effect.retry(polling),
    Effect.orDie
  )
