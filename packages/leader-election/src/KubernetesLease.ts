/**
 * `LeaderElection` by a Lease of a Kubernetes API. Load this module only if it is used: access to the API takes memory that
 * programs without a cluster should not pay for.
 */
import type { AccessOptions } from "@spegel-ts/kubernetes/ClusterAccess"
import { Effect, Layer } from "effect"
import * as Elector from "./internal/elector/Elector.ts"
import * as KubernetesLeaseApi from "./internal/lease/KubernetesLeaseApi.ts"
import { type CandidateOptions, defaultTimes, type ElectionTimesInvalid, LeaderElection } from "./LeaderElection.ts"

/** A candidate for a `coordination.k8s.io/v1` Lease. */
export interface KubernetesLeaseOptions extends CandidateOptions, AccessOptions {
  /** Namespace of the Lease, which must exist. */
  readonly namespace: string
  /** Name of the Lease, which is created if it does not exist. */
  readonly name: string
}

/**
 * A candidate. The layer is built without the API server, too: what is missing is logged once, with what to do about it, and
 * tried again. The Lease is given back when the scope closes.
 */
export const layer = (options: KubernetesLeaseOptions): Layer.Layer<LeaderElection, ElectionTimesInvalid> =>
  Layer.effect(
    LeaderElection,
    Effect.flatMap(KubernetesLeaseApi.make(options), (api) => Elector.make({ times: defaultTimes, ...options, api }))
  )
