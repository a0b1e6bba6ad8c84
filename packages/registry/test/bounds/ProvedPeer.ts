/** False peers in a cluster with a key: several ids of one machine, and answers that are signed. */
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import type { PeerAuthMode } from "@spegel-ts/cluster-key/PeerAuth"
import * as AnswerProof from "@spegel-ts/registry/internal/auth/AnswerProof"
import { proofHeader } from "@spegel-ts/registry/internal/auth/RequestProof"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import type { Peer } from "@spegel-ts/router/Peer"
import type { MemoryNetwork } from "@spegel-ts/router/Router"
import { Effect } from "effect"
import { auth, ring } from "../auth/Keys.ts"
import { proofOf } from "../auth/ProvedPeers.ts"
import { get as getPlain } from "../mirror/FalsePeer.ts"

/** Starts a node in one of the modes, with the key of `signed`. */
export const inMode = (mode: PeerAuthMode) =>
  mode === "off" ? <A, E, R>(effect: Effect.Effect<A, E, R>) => effect : Effect.provide(auth(mode))

/** Asks as a node's containerd does: with a token of the key. */
export const get = (url: string, init?: RequestInit) =>
  getPlain(url, { ...init, headers: { authorization: `Bearer ${ClientToken.make(ring, "node")}` } })

/** Changes what the router says of a peer. */
export const change = (network: MemoryNetwork, id: string, changes: Partial<Peer>): void => {
  const peer = network.members.get(id)
  if (peer === undefined) throw new Error(`${id} is not a member`)
  network.members.set(id, { ...peer, ...changes })
}

/** Names a peer's machine by another id, as one that provides `name`, before those that were named so far. */
export const addId = (
  network: MemoryNetwork,
  id: string,
  name: string,
  peer: Omit<Peer, "id"> & { readonly id?: string }
): void => {
  network.members.set(id, { id, ...peer })
  const key = ContentKey.make(name)
  network.providers.set(key, new Set([id, ...network.providers.get(key) ?? []]))
}

/** An answer with its signature, if the request is signed. */
export const signed = (request: string, answer: Buffer): Buffer => {
  const nonce = proofOf(request)?.nonce
  if (nonce === undefined) return answer
  const end = answer.indexOf("\r\n") + 2
  const [first = "", ...lines] = answer.toString("latin1", 0, answer.indexOf("\r\n\r\n")).split("\r\n")
  const fields = Object.fromEntries(lines.map((line) => line.split(": ", 2) as [string, string]))
  const proof =
    AnswerProof.sign({ key: ring.current("registry"), nonce }, Number(first.split(" ")[1]), fields)[proofHeader]
  return Buffer.concat([
    answer.subarray(0, end),
    Buffer.from(`${proofHeader}: ${String(proof)}\r\n`),
    answer.subarray(end)
  ])
}
