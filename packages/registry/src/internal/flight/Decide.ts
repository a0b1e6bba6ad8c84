/** Decides who downloads a content from upstream, for those that ask this node. */
import type * as Digest from "@spegel-ts/oci/Digest"
import { Effect } from "effect"
import type { ContentRequest } from "../../ContentId.ts"
import * as FollowPolicy from "../follow/FollowPolicy.ts"
import type { MirrorParts } from "../pull/MirrorParts.ts"
import * as AskDecider from "./AskDecider.ts"
import * as Deciders from "./Deciders.ts"
import type * as Lease from "./Lease.ts"

/**
 * A node that has just joined does not know all members, and may ask another node than all others do. So this one passes its question
 * on, once, to the node that decides as far as this one knows.
 */
export const forPeer = Effect.fnUntraced(function*(
  mirror: MirrorParts,
  request: ContentRequest,
  digest: Digest.Digest,
  asked: Lease.Asked
): Effect.fn.Return<Lease.Decision> {
  if (asked.verb === "ask") {
    const peers = yield* mirror.router.peers
    const others = peers.filter(({ id }) => !asked.inVain.includes(id))
    const [first = mirror.self] = Deciders.choose(digest, mirror.self, others)
    const passed = first === mirror.self || first === asked.asker
      ? undefined
      : yield* AskDecider.peer(mirror, request, peers, first, { ...asked, verb: "pass" }, FollowPolicy.passMillis)
    if (passed?._tag === "Wait") return passed
    if (passed?._tag === "Go") return yield* AskDecider.here(mirror, digest, { ...asked, verb: "hold" })
  }
  return yield* AskDecider.here(mirror, digest, asked)
})
