/** The headline: whether this node works, whether it is protected, and what the mirror did in the last hour. */
import { Schema } from "effect"
import type { Facts } from "./Facts.ts"

export const Circuit = Schema.Struct({
  registry: Schema.String,
  /** Milliseconds until a request gives peers the usual time again. */
  millis: Schema.Finite
})

export const LastHour = Schema.Struct({
  fromPeers: Schema.Int,
  bytesFromPeers: Schema.Finite,
  leftToUpstream: Schema.Int,
  failed: Schema.Int,
  peersFailed: Schema.Int,
  sentToPeers: Schema.Int,
  bytesSentToPeers: Schema.Finite,
  /** The share, from 0 to 1, of requests for content that this node lacked which peers served; null if there were none. */
  shareFromPeers: Schema.NullOr(Schema.Finite)
})

export const Status = Schema.Struct({
  version: Schema.String,
  id: Schema.String,
  addresses: Schema.Array(Schema.String),
  /** The port on which peers are answered. */
  registryPort: Schema.Int,
  dataPlane: Schema.String,
  /** Why it is not the zero-copy one; empty if it is, or was not asked for. */
  dataPlaneReason: Schema.String,
  state: Schema.Literals(["not ready", "ready", "ready, alone"]),
  /** Why the node is not ready, or alone; empty otherwise. */
  stateReason: Schema.String,
  peers: Schema.Int,
  peerAuth: Schema.Literals(["off", "prefer", "require"]),
  /** Whether all peers have proved that they have the cluster key. */
  isProtected: Schema.Boolean,
  /** The same in words, behind "Protected: " or "Not protected: ". */
  protection: Schema.String,
  /** Reasons why containerd does not use this mirror, or keeps no layers for peers. */
  faults: Schema.Array(Schema.String),
  advertisedDigests: Schema.Int,
  advertised: Schema.Array(Schema.Struct({ registry: Schema.String, images: Schema.Int, tags: Schema.Int })),
  circuits: Schema.Array(Circuit),
  lastHour: LastHour
})
export type Status = typeof Status.Type

const countOf = (peers: number): string => `${peers} ${peers === 1 ? "peer" : "peers"}`

const protectionOf = ({ peerAuth, peers }: Facts): Pick<Status, "isProtected" | "protection"> => {
  if (peerAuth === "off") {
    return { isProtected: false, protection: "whoever reaches the router's port is a peer (--peer-auth=off)" }
  }
  const unproved = peers.filter(({ proved }) => proved !== true).length
  const all = peers.length === 0 ? "no peers yet" : peers.length === 1 ? "the one peer" : `all ${countOf(peers.length)}`
  const isProtected = unproved === 0
  const who = isProtected
    ? all
    : `${unproved} of ${countOf(peers.length)} ${unproved === 1 ? "has" : "have"} not proved the cluster key`
  return { isProtected, protection: `${who} (--peer-auth=${peerAuth})` }
}

const stateOf = ({ standing }: Facts): Pick<Status, "state" | "stateReason"> => {
  switch (standing._tag) {
    case "Joining":
      return { state: "not ready", stateReason: standing.reason }
    case "Joined":
      return { state: "ready", stateReason: "" }
    case "Alone":
      return { state: "ready, alone", stateReason: standing.reason }
  }
}

const shareOf = ({ fromPeers, leftToUpstream }: Facts["lastHour"]): number | null =>
  fromPeers + leftToUpstream === 0 ? null : fromPeers / (fromPeers + leftToUpstream)

export const of = (facts: Facts): Status => {
  const { activity, advertised, faults, lastHour, peerAuth, peers, plane, self, version } = facts
  return {
    version,
    id: self.id,
    addresses: self.addresses,
    registryPort: self.servicePort,
    dataPlane: plane.name,
    dataPlaneReason: plane.reason ?? "",
    ...stateOf(facts),
    peers: peers.length,
    peerAuth,
    ...protectionOf(facts),
    faults,
    advertisedDigests: advertised.digests,
    advertised: [...advertised.tags].map(([registry, tags]) => ({
      registry,
      images: advertised.images.get(registry) ?? 0,
      tags
    })),
    circuits: activity.circuits,
    lastHour: { ...lastHour, shareFromPeers: shareOf(lastHour) }
  }
}
