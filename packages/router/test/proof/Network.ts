/** Routers with cluster keys, and what they know of each other. */
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import type { PeerAuthState } from "@spegel-ts/cluster-key/PeerAuth"
import type * as ContentKey from "@spegel-ts/router/ContentKey"
import type { Peer } from "@spegel-ts/router/Peer"
import type { Router } from "@spegel-ts/router/Router"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Effect, Metric, Stream, SubscriptionRef } from "effect"

export type Node = typeof Router.Service

export const required = (ring: KeyRing, mode: "require" | "prefer" = "require"): PeerAuthState => ({
  mode,
  keys: { ring: () => ring, changes: Stream.make(ring) }
})

/** Keys that a test changes. */
export const changing = Effect.fnUntraced(function*(mode: "require" | "prefer", ring: KeyRing) {
  const current = yield* SubscriptionRef.make(ring)
  const auth: PeerAuthState = {
    mode,
    keys: { ring: () => SubscriptionRef.getUnsafe(current), changes: SubscriptionRef.changes(current) }
  }
  return { auth, set: (ring: KeyRing) => SubscriptionRef.set(current, ring) }
})

export const heard = (node: Node) =>
  Effect.map(node.peers, (peers) => peers.filter(({ lastHeardMillis }) => lastHeardMillis !== undefined))

/** Waits until a node has heard from so many members, all of which prove as much as is wanted. */
export const knows = (node: Node, count: number, proved?: boolean) =>
  eventually(Effect.map(
    heard(node),
    (peers) =>
      peers.length === count && (proved === undefined || peers.every((peer) => (peer.proved ?? false) === proved))
  ))

export const find = (node: Node, key: ContentKey.ContentKey): Effect.Effect<ReadonlyArray<Peer>> =>
  Effect.orDie(Stream.runCollect(node.lookup(key, { count: 10 })))

/** The proofs that failed in this process so far, as the metric counts them, by reason. */
export const failureCounts: Effect.Effect<ReadonlyMap<string, number>> = Effect.map(
  Metric.snapshot,
  (metrics) =>
    new Map(metrics.flatMap(({ attributes, id, state }) =>
      id === "spegel_peer_auth_failures_total" && "count" in state
        ? [[attributes?.["reason"] ?? "", Number(state.count)] as const]
        : []
    ))
)

export const count = (counts: ReadonlyMap<string, number>, reason: string): number => counts.get(reason) ?? 0

/** The value of a gauge's series, as the last router of this process has published it. */
export const gauge = (name: string, labels: Readonly<Record<string, string>>): Effect.Effect<number | undefined> =>
  Effect.map(Metric.snapshot, (metrics) => {
    const series = metrics.find(({ attributes, id }) =>
      id === name && Object.entries(labels).every(([label, value]) => attributes?.[label] === value)
    )
    return series !== undefined && "value" in series.state ? Number(series.state.value) : undefined
  })
