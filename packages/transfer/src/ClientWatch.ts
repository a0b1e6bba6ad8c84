/**
 * Looks after the client of a body while it is moved: it fails when the client takes nothing for too long, and is meant to
 * race `move`. Time in which the client waits for the source counts for nothing. Node cannot tell, as it does not see what
 * the mover writes.
 */
import { Effect } from "effect"
import { ClientGone } from "./Body.ts"
import type { Progress } from "./Progress.ts"

/** A client that takes nothing is given up between its time and an eighth more. */
const looks = 8

/** Never succeeds. */
export const watch = (
  progress: Pick<Progress, "moved" | "silentMillis">,
  timeoutMillis: number
): Effect.Effect<never, ClientGone> =>
  Effect.gen(function*() {
    let moved = progress.moved
    for (let still = 0; still < looks;) {
      yield* Effect.sleep(timeoutMillis / looks)
      still = progress.moved === moved && progress.silentMillis === 0 ? still + 1 : 0
      moved = progress.moved
    }
    return yield* new ClientGone()
  })
