/** Asks one node that decides who downloads a content from upstream: this one, or another. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { PeerFacts } from "@spegel-ts/router/Peer"
import { Effect } from "effect"
import type { ContentRequest } from "../../ContentId.ts"
import * as FollowPolicy from "../follow/FollowPolicy.ts"
import * as AskPeer from "../pull/AskPeer.ts"
import type { MirrorParts } from "../pull/MirrorParts.ts"
import * as Lease from "./Lease.ts"

/** By the leases of this node. */
export const here = ({ leases }: MirrorParts, content: string, asked: Lease.Asked): Effect.Effect<Lease.Decision> =>
  Effect.map(MonotonicTime.millis, (now) => leases.ask(content, asked, now))

/** Sends a question to another one; undefined if it does not answer in time. */
export const peer = (
  { transport }: MirrorParts,
  request: ContentRequest,
  peers: ReadonlyArray<PeerFacts>,
  id: string,
  asked: Lease.Asked,
  millis = FollowPolicy.decideMillis
): Effect.Effect<Lease.Decision | undefined> => {
  const found = peers.find((one) => one.id === id)
  if (found === undefined) return Effect.undefined
  return transport.request(found, AskPeer.headWith(request, { [Lease.leaseHeader]: Lease.printAsked(asked) })).pipe(
    // One that gives no leases and has the content says so.
    Effect.map(({ headers, status }): Lease.Decision | undefined =>
      status === 200 ? { _tag: "Wait", id } : Lease.parse(headers.get(Lease.leaseHeader))
    ),
    Effect.scoped,
    Effect.timeout(millis),
    Effect.orElseSucceed(() => undefined)
  )
}
