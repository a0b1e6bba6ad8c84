/** Chooses the nodes that decide who downloads a content from upstream: the same ones, as far as all nodes know the same members. */
import type { PeerFacts } from "@spegel-ts/router/Peer"
import { hash } from "node:crypto"

/** The first decides; the second one is told what it decided, and decides if the first is gone. */
const count = 2

/** The members that have proved the key with the highest rank for this content, by rendezvous hashing; `self` may be one of them. */
export const choose = (content: string, self: string, peers: ReadonlyArray<PeerFacts>): ReadonlyArray<string> =>
  [self, ...peers.filter(({ proved }) => proved === true).map(({ id }) => id)]
    .map((id) => ({ id, rank: hash("sha256", `${content} ${id}`, "hex") }))
    .toSorted((one, other) => one.rank < other.rank ? 1 : -1)
    .slice(0, count)
    .map(({ id }) => id)
