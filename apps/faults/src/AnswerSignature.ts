/** The proofs of the cluster key in a fault peer's answers: with them it is a member of the cluster that misbehaves, and is believed. */
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import * as AnswerProof from "@spegel-ts/registry/internal/auth/AnswerProof"
import * as RequestProof from "@spegel-ts/registry/internal/auth/RequestProof"
import type { IncomingMessage, OutgoingHttpHeaders } from "node:http"

/** Adds the proof to the head of the answer to a signed request. Those of other requests stay as they are. */
export type Sign = (request: IncomingMessage, status: number, headers: OutgoingHttpHeaders) => OutgoingHttpHeaders

export const signer = (ring: KeyRing): Sign => ({ headers: asked }, status, headers) => {
  const header = asked[RequestProof.proofHeader]
  const nonce = typeof header === "string" ? RequestProof.parse(header)?.nonce : undefined
  return AnswerProof.sign(nonce === undefined ? undefined : { key: ring.current("registry"), nonce }, status, headers)
}
