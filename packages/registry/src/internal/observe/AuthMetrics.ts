/** Metrics of who asks this node, and of who is not served. */
import * as MetricFamily from "@spegel-ts/background/MetricFamily"
import * as PeerAuthMetrics from "@spegel-ts/cluster-key/PeerAuthMetrics"
import { type Context, Effect, Metric } from "effect"
import type { Admission } from "../auth/AccessControl.ts"
import type { Caller } from "../auth/Caller.ts"

type KnownCaller = Exclude<Caller, { readonly _tag: "Anybody" }>

const names: Readonly<Record<KnownCaller["_tag"], string>> = {
  Own: "own",
  Node: "node",
  Basic: "basic",
  Peer: "peer",
  Unproved: "unproved",
  UnprovedPeer: "unproved_peer"
}

const labelsOf = (caller: KnownCaller) => ({
  client: names[caller._tag],
  key: "key" in caller ? caller.key : "none"
})

const callers: ReadonlyArray<KnownCaller> = [
  ...(["Own", "Node", "Peer"] as const).flatMap((_tag) => (["current", "old"] as const).map((key) => ({ _tag, key }))),
  ...(["Basic", "Unproved", "UnprovedPeer"] as const).map((_tag) => ({ _tag }))
]

const admitted = MetricFamily.make(
  Metric.counter("spegel_client_auth_total", {
    description: "Requests by who sent them, and whether their key is the current one or one that is being replaced",
    incremental: true
  }),
  callers.map(labelsOf)
)
const refused = MetricFamily.make(
  Metric.counter("spegel_client_auth_refused_total", {
    description: "Requests of clients that were not served because they have no token and no password, or wrong ones",
    incremental: true
  }),
  [{ credentials: "none" }, { credentials: "wrong" }]
)

/** Begins all series. */
export const initialise: Effect.Effect<void> = Effect.andThen(
  MetricFamily.exist([...admitted.known, ...refused.known]),
  PeerAuthMetrics.initialise
)

/** Counts a request that is served, synchronously. Where nobody proves anything, nothing is counted. */
export const admittedUnsafe = (caller: Caller, context: Context.Context<never>): void => {
  if (caller._tag !== "Anybody") admitted.of(labelsOf(caller)).updateUnsafe(1, context)
}

/** Counts a request by whether it is served. */
export const counted = (admission: Admission): Effect.Effect<void> => {
  switch (admission._tag) {
    case "Admitted":
      if (admission.caller._tag === "Anybody") return Effect.void
      return Effect.contextWith((context) => Effect.sync(() => admittedUnsafe(admission.caller, context)))
    case "PeerRefused":
      return PeerAuthMetrics.failed(admission.reason)
    case "ClientRefused":
      return Metric.update(refused.of({ credentials: admission.credentials }), 1)
  }
}
