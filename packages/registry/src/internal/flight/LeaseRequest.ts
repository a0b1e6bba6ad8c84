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
    const say = (id: string, verb: Lease.Asked["verb"], inVain: ReadonlyArray<string>) => {
      const asked: Lease.Asked = { verb, asker: self, inVain: inVain.slice(-Lease.maxInVain) }
      return id === self ? AskDecider.here(mirror, name, asked) : AskDecider.peer(mirror, request, peers, id, asked)
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
