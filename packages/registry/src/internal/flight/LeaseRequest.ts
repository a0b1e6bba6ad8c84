/** Asks the nodes that decide on it whether this node downloads a content from upstream, or waits for another one. */
import type { PeerFacts } from "@spegel-ts/router/Peer"
import { Duration, Effect } from "effect"
import type { ContentRequest } from "../../ContentId.ts"
import * as ContentId from "../../ContentId.ts"
import * as AskPeer from "../pull/AskPeer.ts"
import type { MirrorParts } from "../pull/MirrorParts.ts"
import type { Pull } from "../pull/Pull.ts"
import * as Decide from "./Decide.ts"
import * as Deciders from "./Deciders.ts"
import * as Lease from "./Lease.ts"

/**
 * How long to wait for a decider. It is asked twice: a packet may be lost. A node that starts many containers may answer late, and a wrong
 * guess costs a download.
 */
const timeout = Duration.millis(500)
const go: Lease.Decision = { _tag: "Go" }

/**
 * `inVain` are the nodes that were waited for in vain; `silent` those that have not answered such a question, and it gets further ones. The
 * first decider that answers counts, and the others are told if this node has
 * the lease. If none answers, this node downloads: never worse than alone.
 */
export const ask = Effect.fnUntraced(
  function*(
    { content, mirror, request }: Pull,
    inVain: ReadonlyArray<string>,
    silent: Set<string>
  ): Effect.fn.Return<Lease.Decision> {
    const { router, scope, self } = mirror
    const peers = yield* router.peers
    const name = ContentId.print(content)
    const say = (id: string, verb: Lease.Asked["verb"], inVain: ReadonlyArray<string>) => {
      const asked: Lease.Asked = { verb, asker: self, inVain: inVain.slice(-Lease.maxInVain) }
      return id === self ? Decide.here(mirror, name, asked) : askPeer(mirror, request, peers, id, asked)
    }
    // One that was waited for in vain would keep this pull waiting again. A node that thinks it decides itself may not know all.
    const others = peers.filter(({ id }) => !inVain.includes(id) && !silent.has(id))
    const deciders = Deciders.choose(name, self, others)
      .toSorted((one, other) => Number(one === self) - Number(other === self))
    for (const id of deciders) {
      const avoided = [...inVain, ...silent]
      const decision = (yield* say(id, "ask", avoided)) ?? (yield* say(id, "ask", avoided))
      if (decision === undefined) {
        silent.add(id)
        continue
      }
      const told = decision._tag === "Go" ? deciders.filter((one) => one !== id && !silent.has(one)) : []
      yield* Effect.forkIn(Effect.forEach(told, (one) => say(one, "hold", [])), scope)
      return decision
    }
    return go
  }
)

/** Sends a question to a decider; undefined if it does not answer. */
export const askPeer = (
  { transport }: MirrorParts,
  request: ContentRequest,
  peers: ReadonlyArray<PeerFacts>,
  id: string,
  asked: Lease.Asked,
  time = timeout
): Effect.Effect<Lease.Decision | undefined> => {
  const peer = peers.find((one) => one.id === id)
  if (peer === undefined) return Effect.undefined
  return transport.request(peer, AskPeer.headWith(request, { [Lease.leaseHeader]: Lease.printAsked(asked) })).pipe(
    Effect.map(({ headers, status }): Lease.Decision | undefined =>
      status === 200 ? { _tag: "Wait", id } : Lease.parse(headers.get(Lease.leaseHeader))
    ),
    Effect.scoped,
    Effect.timeout(time),
    Effect.orElseSucceed(() => undefined)
  )
}
