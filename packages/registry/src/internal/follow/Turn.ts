/** When this node gives up, among all that may wait for the same download. */
import { Effect, Random } from "effect"
import type { MirrorParts } from "../pull/MirrorParts.ts"
import * as FollowPolicy from "./FollowPolicy.ts"

/** As `FollowPolicy.turnOf` has it. Drawn anew for each wait. */
export const draw = Effect.fnUntraced(function*({ router }: MirrorParts): Effect.fn.Return<number> {
  return FollowPolicy.turnOf((yield* router.peers).length + 1, yield* Random.next)
})
