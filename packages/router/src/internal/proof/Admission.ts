/** Which connections may carry Kademlia and gossip, and what their peers have proved. */
import type { Connection } from "@libp2p/interface"
import type { Proof } from "./Exchange.ts"
import type { FailureReason } from "./ProofFailure.ts"

export type Outcome =
  /** The peer knows the cluster key. */
  | { readonly _tag: "Proved"; readonly proof: Proof }
  /** The peer has proved nothing, and may take part nevertheless. */
  | { readonly _tag: "Unproved" }
  /** The peer may not take part, and its connection is being closed. */
  | { readonly _tag: "Refused"; readonly reason: FailureReason }

export interface Admission {
  /** What is known of a connection now; undefined until that is decided. */
  readonly now: (connection: Connection) => Outcome | undefined
  /** Resolves when it is decided, within a few seconds. Never rejects. */
  readonly settled: (connection: Connection) => Promise<Outcome>
}

const unproved: Outcome = { _tag: "Unproved" }

/** Everybody may take part, and nobody proves anything. */
export const everybody: Admission = { now: () => unproved, settled: () => Promise.resolve(unproved) }
