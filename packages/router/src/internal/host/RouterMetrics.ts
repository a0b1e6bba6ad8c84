/** The router's metrics. They have Spegel's names where Spegel has them. */
import * as Background from "@spegel-ts/background/Background"
import * as MetricFamily from "@spegel-ts/background/MetricFamily"
import * as PeerAuthMetrics from "@spegel-ts/cluster-key/PeerAuthMetrics"
import { type Context, Effect, Metric, Schedule, type Scope } from "effect"
import type { DhtCounts } from "../dht/Dht.ts"
import type { TransportCounts } from "../dht/rpc/Libp2pTransport.ts"
import type { FailureReason } from "../proof/ProofFailure.ts"

const attributes = { router: "libp2p" }

const resolveDuration = Metric.histogram("spegel_resolve_duration_seconds", {
  description: "How long it took to find the first peer with a key, or to know that there is none",
  boundaries: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5],
  attributes
})
const peers = Metric.gauge("spegel_router_peers", { description: "Members of the network known here", attributes })
const records = Metric.gauge("spegel_router_records", {
  description: "Provider records kept for the network",
  attributes
})
const ownKeys = Metric.gauge("spegel_router_own_keys", { description: "Keys that this node provides", attributes })
const evictions = Metric.counter("spegel_router_evictions_total", {
  description: "Members evicted because they did not answer",
  incremental: true,
  attributes
})
const bytesSent = Metric.counter("spegel_router_sent_bytes_total", {
  description: "Bytes of requests and gossip messages to peers, without transport",
  incremental: true,
  attributes
})
const identityConflicts = MetricFamily.make(
  Metric.counter("spegel_router_identity_conflicts_total", {
    description: "Two nodes that have proved one identity: this node's own, or a member's",
    incremental: true,
    attributes
  }),
  [{ kind: "own" }, { kind: "member" }]
)
const requests = MetricFamily.make(
  Metric.counter("spegel_router_requests_total", {
    description: "Requests to peers by type and outcome",
    incremental: true,
    attributes
  })
)

const provedMembers = MetricFamily.make(
  Metric.gauge("spegel_peer_auth_members", {
    description: "Members that this node has heard from, by whether they have proved that they know the cluster key",
    attributes
  }),
  [{ proved: "true" }, { proved: "false" }]
)
const keyConnections = MetricFamily.make(
  Metric.gauge("spegel_cluster_key_connections", {
    description: "Open connections to peers, by the id of the cluster key that they have proved",
    attributes
  })
)

/** Begins the series of proofs, of a node that asks for them. */
export const initialiseProofs: Effect.Effect<void> = Effect.andThen(
  PeerAuthMetrics.initialise,
  MetricFamily.exist(provedMembers.known)
)

/** Begins all series whose labels are known. Those of requests begin with the first `publish`. */
export const initialise: Effect.Effect<void> = MetricFamily.exist([
  resolveDuration,
  peers,
  records,
  ownKeys,
  evictions,
  bytesSent,
  ...identityConflicts.known
])

/** Counts two nodes with the same identity. */
export const identityConflict = (kind: "own" | "member"): Effect.Effect<void> =>
  Metric.update(identityConflicts.of({ kind }), 1)

/** Records how long a lookup took to its first peer, or to its end if it found none. */
export const resolvedUnsafe = (seconds: number, context: Context.Context<never>): void => {
  resolveDuration.updateUnsafe(seconds, context)
}

const publishInterval = "5 seconds"

/** Counts of the proofs of membership. */
export interface ProofCounts {
  readonly failures: { readonly counts: ReadonlyMap<FailureReason, number> }
  /** Open connections by the id of the key that they have proved. */
  readonly connectionsByKey: ReadonlyMap<string, number>
}

/** The counts to publish; `proofs` is undefined if nobody proves anything. */
export interface RouterCounts {
  readonly dht: DhtCounts
  readonly transport: TransportCounts
  readonly proofs: ProofCounts | undefined
}

/** Publishes the counts of the DHT and its transport every few seconds while the scope is open: counting itself is free. */
export const publish = (read: () => RouterCounts): Effect.Effect<void, never, Scope.Scope> => {
  const published = new Map<string, number>()
  const keys = new Set<string>()
  /** How much a count has grown since it was last published. */
  const growth = (name: string, total: number) => {
    const before = published.get(name) ?? 0
    published.set(name, total)
    return total - before
  }
  const ofProofs = (dht: DhtCounts, { connectionsByKey, failures }: ProofCounts) => {
    // A key that is no longer in use is at zero.
    for (const key of connectionsByKey.keys()) keys.add(key)
    return [
      Metric.update(provedMembers.of({ proved: "true" }), dht.proved),
      Metric.update(provedMembers.of({ proved: "false" }), dht.unproved),
      ...[...keys].map((key) => Metric.update(keyConnections.of({ key }), connectionsByKey.get(key) ?? 0)),
      ...[...failures.counts].map(([reason, total]) => PeerAuthMetrics.failed(reason, growth(`proof ${reason}`, total)))
    ]
  }
  const once = Effect.suspend(() => {
    const { dht, proofs, transport } = read()
    return Effect.all([
      Metric.update(peers, dht.members),
      Metric.update(records, dht.records),
      Metric.update(ownKeys, dht.ownKeys),
      Metric.update(evictions, growth("evictions", dht.evictions)),
      Metric.update(bytesSent, growth("bytes", transport.bytesSent)),
      ...[...transport.requests].map(([name, total]) => {
        const [type = "", outcome = ""] = name.split(" ")
        return Metric.update(requests.of({ type, outcome }), growth(name, total))
      }),
      ...(proofs === undefined ? [] : ofProofs(dht, proofs))
    ], { discard: true })
  })
  return Background.keepRunning("router metrics", Effect.repeat(once, Schedule.spaced(publishInterval)))
}
