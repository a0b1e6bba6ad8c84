/** Decides who downloads a content from upstream, for those that ask this node. */
import type * as Digest from "@spegel-ts/oci/Digest"
import { Duration, Effect } from "effect"
import type { ContentRequest } from "../../ContentId.ts"
import type { MirrorParts } from "../pull/MirrorParts.ts"
import * as AskDecider from "./AskDecider.ts"
import * as Deciders from "./Deciders.ts"
import type * as Lease from "./Lease.ts"

/** Whoever asks waits for this too. */
const passTimeout = Duration.millis(200)

/**
 * For a node that has just joined another one may decide than for all others, since it does not know all members. So its question
 * is passed on, once, to the node that decides as far as this one knows.
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
      : yield* AskDecider.peer(mirror, request, peers, first, { ...asked, verb: "pass" }, passTimeout)
    if (passed?._tag === "Wait") return passed
    if (passed?._tag === "Go") return yield* AskDecider.here(mirror, digest, { ...asked, verb: "hold" })
  }
  return yield* AskDecider.here(mirror, digest, asked)
})
