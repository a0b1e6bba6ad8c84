/** False peers in a cluster with a key: several ids of one machine, and answers that are signed. */
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import { generate, KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import * as PeerAuth from "@spegel-ts/cluster-key/PeerAuth"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import type { Peer } from "@spegel-ts/router/Peer"
import type { MemoryNetwork } from "@spegel-ts/router/Router"
import { Effect, Result } from "effect"
import { get as getPlain } from "../mirror/FalsePeer.ts"

const ring = Result.getOrThrow(KeyRing.parse(generate()))

/** Starts a node in one of the modes, with the key of `signed`. */
export const inMode = (mode: PeerAuth.PeerAuthMode) =>
  mode === "off"
    ? <A, E, R>(effect: Effect.Effect<A, E, R>) => effect
    : Effect.provide(PeerAuth.layer({ mode, ring }))

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
  const [, nonce = ""] = /^x-spegel-auth: v1 \S+ \S+ (\S+) /im.exec(request) ?? []
  if (nonce === "") return answer
  const end = answer.indexOf("\r\n")
  const head = answer.subarray(0, answer.indexOf("\r\n\r\n") + 2).toString("latin1")
  const [, status = ""] = /^HTTP\/1\.1 (\d+)/.exec(head) ?? []
  const field = (name: string) => new RegExp(`^${name}: (.*)\r$`, "im").exec(head)?.[1] ?? ""
  const key = ring.current("registry")
  const signature = key.sign([
    "answer",
    nonce,
    status,
    ...["docker-content-digest", "content-length", "content-type", "content-range", "x-spegel-time"].map(field)
  ])
  return Buffer.concat([
    answer.subarray(0, end + 2),
    Buffer.from(`x-spegel-auth: v1 ${key.id} ${signature.toString("base64url")}\r\n`),
    answer.subarray(end + 2)
  ])
}
