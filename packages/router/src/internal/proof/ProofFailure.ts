/** Why a peer did not prove that it knows the cluster key. */
import type { Reason } from "@spegel-ts/cluster-key/PeerAuthMetrics"

/** The reasons, as metrics name them, with what each says about the peers that it happened with. */
const meanings = {
  other_key: "have another cluster key",
  bad_signature: "have sent a wrong signature",
  malformed: "have sent what is no proof",
  timeout: "have not proved in time that they know the cluster key",
  downgrade: "no longer prove that they know the cluster key, as they did before",
  unproved: "do not prove that they know the cluster key"
} as const satisfies Partial<Record<Reason, string>>

export type FailureReason = keyof typeof meanings

/** Says of peers what the reason means: "have another cluster key". */
export const meaningOf = (reason: FailureReason): string => meanings[reason]

const whatToDo = "give all nodes the same cluster key file"

/** What to do about failures of these reasons, to be put behind a sentence; empty if there is nothing to say. */
export const adviceOn = (reasons: ReadonlyArray<FailureReason>): string =>
  reasons.includes("other_key") ? `; ${whatToDo}` : ""

/** The exchange ended without a proof. */
export class ProofFailed extends Error {
  override readonly name = "ProofFailed"
  readonly reason: FailureReason

  constructor(reason: FailureReason) {
    super(`the peer did not prove its membership: ${reason}`)
    this.reason = reason
  }
}
