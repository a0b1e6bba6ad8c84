/** Asks the nodes that decide on it whether this node downloads a content from upstream, or waits for another one. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { PeerFacts } from "@spegel-ts/router/Peer"
import { Effect, Fiber } from "effect"
import * as ContentId from "../../ContentId.ts"
import * as AskPeer from "../pull/AskPeer.ts"
import type { Pull } from "../pull/Pull.ts"
import * as Deciders from "./Deciders.ts"
import * as Lease from "./Lease.ts"

/** How long to wait for a decider. A node that starts many containers may answer late, and a wrong guess costs a download. */
const timeout = "1 second"
const go: Lease.Decision = { _tag: "Go" }

/**
 * `inVain` are the nodes that were waited for in vain. All deciders are asked at once, and the first of them counts that answers. If none
 * does, this node downloads: never worse than alone.
 */
export const ask = Effect.fnUntraced(
  function*(pull: Pull, inVain: ReadonlyArray<string>): Effect.fn.Return<Lease.Decision> {
    const { content, mirror: { leases, router, self } } = pull
    const peers = yield* router.peers
    const name = ContentId.print(content)
    const asked: Lease.Asked = { asker: self, inVain: inVain.slice(-Lease.maxInVain) }
    const now = yield* MonotonicTime.millis
    const asking = yield* Effect.forEach(
      Deciders.choose(name, self, peers),
      (id) =>
        Effect.forkChild(
          id === self
            ? Effect.sync(() => leases.ask(name, asked, now))
            : askPeer(pull, peers.find((peer) => peer.id === id), asked)
        )
    )
    for (const fiber of asking) {
      const decision = yield* Fiber.join(fiber)
      if (decision !== undefined) return decision
    }
    return go
  }
)

const askPeer = ({ mirror: { transport }, request }: Pull, peer: PeerFacts | undefined, asked: Lease.Asked) => {
  if (peer === undefined) return Effect.undefined
  return transport.request(peer, AskPeer.headWith(request, { [Lease.leaseHeader]: Lease.printAsked(asked) })).pipe(
    Effect.map(({ headers, status }): Lease.Decision | undefined =>
      status === 200 ? { _tag: "Wait", id: peer.id } : Lease.parse(headers.get(Lease.leaseHeader))
    ),
    Effect.scoped,
    Effect.timeout(timeout),
    Effect.orElseSucceed(() => undefined)
  )
}
