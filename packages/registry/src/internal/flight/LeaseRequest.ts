/** Asks the nodes that decide on it whether this node downloads a content from upstream, or waits for another one. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { PeerFacts } from "@spegel-ts/router/Peer"
import { Effect } from "effect"
import * as ContentId from "../../ContentId.ts"
import * as AskPeer from "../pull/AskPeer.ts"
import type { Pull } from "../pull/Pull.ts"
import * as Deciders from "./Deciders.ts"
import * as Lease from "./Lease.ts"

/** How long to wait for a decider. A node that starts many containers may answer late, and a wrong guess costs a download. */
const timeout = "1 second"
const go: Lease.Decision = { _tag: "Go" }

/**
 * `inVain` are the nodes that were waited for in vain. The first decider that answers counts, and the others are told if this node has
 * the lease. If none answers, this node downloads: never worse than alone.
 */
export const ask = Effect.fnUntraced(
  function*(pull: Pull, inVain: ReadonlyArray<string>): Effect.fn.Return<Lease.Decision> {
    const { content, mirror: { leases, router, scope, self } } = pull
    const peers = yield* router.peers
    const name = ContentId.print(content)
    const say = (id: string, asked: Lease.Asked) =>
      id === self
        ? Effect.map(MonotonicTime.millis, (now) => leases.ask(name, asked, now))
        : askPeer(pull, peers.find((peer) => peer.id === id), asked)
    // One that was waited for in vain would keep this pull waiting again.
    const deciders = Deciders.choose(name, self, peers.filter(({ id }) => !inVain.includes(id)))
    for (const id of deciders) {
      const decision = yield* say(id, { asker: self, holds: false, inVain: inVain.slice(-Lease.maxInVain) })
      if (decision === undefined) continue
      const others = decision._tag === "Go" ? deciders.filter((one) => one !== id) : []
      const told = Effect.forEach(others, (other) => say(other, { asker: self, holds: true, inVain: [] }))
      yield* Effect.forkIn(told, scope)
      return decision
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
