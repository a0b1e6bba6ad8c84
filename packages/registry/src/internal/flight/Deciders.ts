/** Chooses the nodes that decide who downloads a content from upstream: the same ones, as far as all nodes know the same members. */
import type { PeerFacts } from "@spegel-ts/router/Peer"
import { hash } from "node:crypto"

/** The first decides; the others are told what it decided, and decide if it is gone. */
const count = 3

/** The members that have proved the key with the highest rank for this content, by rendezvous hashing; `self` may be one of them. */
export const choose = (content: string, self: string, peers: ReadonlyArray<PeerFacts>): ReadonlyArray<string> =>
  [self, ...peers.filter(({ proved }) => proved === true).map(({ id }) => id)]
    .map((id) => ({ id, rank: hash("sha256", `${content} ${id}`, "hex") }))
    .toSorted((one, other) => one.rank < other.rank ? 1 : -1)
    .slice(0, count)
    .map(({ id }) => id)
