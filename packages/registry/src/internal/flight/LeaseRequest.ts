/** Asks the nodes that decide on it whether this node downloads a content from upstream, or waits for another one. */
import { Effect } from "effect"
import * as ContentId from "../../ContentId.ts"
import type { Pull } from "../pull/Pull.ts"
import * as AskDecider from "./AskDecider.ts"
import * as Deciders from "./Deciders.ts"
import * as Lease from "./Lease.ts"

const go: Lease.Decision = { _tag: "Go" }

/**
 * `inVain` are the nodes that were waited for in vain; `silent` those that have not answered such a question, and it gets further ones. The
 * first decider that answers counts, and the others are told if this node has the lease. If none answers, this node downloads: never
 * worse than alone. Each is asked twice: a packet may be lost.
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
    const ask = (id: string, asked: Omit<Lease.Asked, "asker">) =>
      AskDecider.peer(mirror, request, peers, id, { ...asked, asker: self })
    const here = (asked: Lease.Asked) => AskDecider.here(mirror, name, asked)
    // One that was waited for in vain would keep this pull waiting again.
    const deciders = Deciders.choose(name, self, peers.filter(({ id }) => !inVain.includes(id) && !silent.has(id)))
    const decides = deciders[0] === self
    if (decides) {
      const own = yield* here({ verb: "ask", asker: self, inVain })
      if (own._tag === "Wait") return own
    }
    // A node that decides itself asks the next one all the same: it may not know all members.
    for (const id of deciders.filter((id) => id !== self)) {
      const asked = { verb: "ask", inVain: [...inVain, ...silent].slice(-Lease.maxInVain) } as const
      const decision = (yield* ask(id, asked)) ?? (yield* ask(id, asked))
      if (decision === undefined) {
        silent.add(id)
        continue
      }
      if (decision._tag === "Go") {
        const told = deciders.filter((one) => one !== id && one !== self && !silent.has(one))
        yield* Effect.forkIn(Effect.forEach(told, (one) => ask(one, { verb: "hold", inVain: [] })), scope)
      }
      const holder = decision._tag === "Go" ? self : decision.id
      if (deciders.includes(self)) yield* here({ verb: "hold", asker: holder, inVain: [] })
      return decision
    }
    return go
  }
)
