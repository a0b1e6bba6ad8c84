/**
 * The leases that this node decides on, or may have to: which nodes download a content from upstream while others wait for them. A lease is short, since
 * a node that downloads advertises that: then lookups find it. It ends at once when the next node that asks has found its holder
 * to be gone, or its download to stand still.
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import type * as Lease from "./Lease.ts"

interface Granted {
  readonly id: string
  /** As `now` of `ask`. */
  readonly until: number
}

const leaseMillis = 30_000
/** A node whose lease others have ended gets no other one for this long: it may lack the pull secret that others have. */
const failedMillis = 60_000
/** A request on its way when a lease is granted must not end it. */
const settleMillis = 1000
const maxContents = 10_000
const maxFailed = 10_000

export class Leases {
  readonly #atOnce: number
  readonly #granted = new BoundedMap<string, ReadonlyArray<Granted>>(maxContents)
  /** Until when a node gets no lease, by content and node. */
  readonly #failed = new BoundedMap<string, number>(maxFailed)

  /** `atOnce` is how many nodes may download the same content. */
  constructor(atOnce: number) {
    this.#atOnce = atOnce
  }

  /** `now` is in milliseconds, by a clock that is not set. */
  ask(content: string, { asker, inVain, verb }: Lease.Asked, now: number): Lease.Decision {
    const before = (this.#granted.get(content) ?? []).filter(({ until }) => until > now)
    if (verb === "hold") {
      // The word of the node that decided counts more than what this one decided on.
      const others = before.filter(({ id }) => id !== asker).slice(0, this.#atOnce - 1)
      this.#granted.set(content, [...others, { id: asker, until: now + leaseMillis }])
      return { _tag: "Go" }
    }
    const held = before.filter(({ id, until }) => !inVain.includes(id) || until - now > leaseMillis - settleMillis)
    for (const { id } of before) {
      if (!held.some((one) => one.id === id)) this.#failed.set(`${content} ${id}`, now + failedMillis)
    }
    const others = held.filter(({ id }) => id !== asker)
    const [first] = others
    if (first !== undefined && others.length >= this.#atOnce) {
      this.#granted.set(content, held)
      return { _tag: "Wait", id: first.id }
    }
    // Without a lease it goes on as it would alone, and others do not wait for it.
    const mayHold = (this.#failed.get(`${content} ${asker}`) ?? 0) <= now
    this.#granted.set(content, mayHold ? [...others, { id: asker, until: now + leaseMillis }] : others)
    return { _tag: "Go" }
  }
}
