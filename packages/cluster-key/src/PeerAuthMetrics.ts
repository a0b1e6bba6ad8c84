/** Proofs of the cluster key that were missing or wrong. The router and the registry count them in one metric. */
import * as MetricFamily from "@spegel-ts/background/MetricFamily"
import { type Effect, Metric } from "effect"

/** What was wrong with the other side's proof. */
export type Reason =
  /** It is made with a key that this node does not have, or the other side has none of this node's keys. */
  | "other_key"
  /** Its signature is wrong: it was made for another node or another message, or was tampered with. */
  | "bad_signature"
  /** It did not come in time. */
  | "timeout"
  /** It is not a proof. */
  | "malformed"
  /** The other side has proved itself before, and does not any more. */
  | "downgrade"
  /** The other side gave none, and this node requires one. */
  | "unproved"
  /** The two nodes do not agree about the time. */
  | "clock"
  /** A peer that has the key answered a signed request without one. */
  | "unsigned_answer"

const reasons: Readonly<Record<Reason, true>> = {
  other_key: true,
  bad_signature: true,
  timeout: true,
  malformed: true,
  downgrade: true,
  unproved: true,
  clock: true,
  unsigned_answer: true
}

const failures = MetricFamily.make(
  Metric.counter("spegel_peer_auth_failures_total", {
    description: "Peers whose proof of the cluster key was missing or wrong, by what was wrong with it",
    incremental: true
  }),
  Object.keys(reasons).map((reason) => ({ reason }))
)

/** Begins all series. */
export const initialise: Effect.Effect<void> = MetricFamily.exist(failures.known)

/** Counts proofs that were missing or wrong. */
export const failed = (reason: Reason, count = 1): Effect.Effect<void> => Metric.update(failures.of({ reason }), count)
