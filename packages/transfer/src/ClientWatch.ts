/**
 * Watches the client of a body and fails when it takes nothing for too long; meant to race `Transfer.move`. Time in which the
 * client waits for the source does not count. Node's own socket timeout does not work here: Node does not see what the mover
 * writes.
 */
import { Effect } from "effect"
import { ClientGone } from "./Body.ts"
import type { Progress } from "./Progress.ts"

/** How often it looks within the timeout: a client is given up after the timeout, and at most an eighth of it later. */
const looks = 8

/** Never succeeds. `timeoutMillis` is how long the client may take nothing. */
export const watch = Effect.fnUntraced(function*(
  progress: Pick<Progress, "moved" | "silentMillis">,
  timeoutMillis: number
): Effect.fn.Return<never, ClientGone> {
  let moved = progress.moved
  for (let still = 0; still < looks;) {
    yield* Effect.sleep(timeoutMillis / looks)
    still = progress.moved === moved && progress.silentMillis === 0 ? still + 1 : 0
    moved = progress.moved
  }
  return yield* new ClientGone()
})
