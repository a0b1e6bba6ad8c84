/** Checks the proof of the cluster key in a peer's request. */
import type { ClusterKeys } from "@spegel-ts/cluster-key/ClusterKeyFile"
import type { PurposeKey } from "@spegel-ts/cluster-key/KeyRing"
import type { Reason } from "@spegel-ts/cluster-key/PeerAuthMetrics"
import type { IncomingMessage } from "node:http"
import { Refusal } from "../serve/Refusal.ts"
import type { AnswerProof } from "./AnswerProof.ts"
import * as RequestProof from "./RequestProof.ts"

export type PeerChecked =
  | { readonly _tag: "Proved"; readonly key: PurposeKey; readonly proof: AnswerProof }
  /** `proof` makes the peer believe the refusal. It is there only if the signature was right. */
  | { readonly _tag: "Wrong"; readonly reason: Reason; readonly refusal: Refusal; readonly proof?: AnswerProof }

export interface PeerCheckOptions {
  readonly keys: ClusterKeys
  /** The peer id of this node. */
  readonly self: string
  /** This node's time, in milliseconds since the epoch. */
  readonly now: () => number
}

/** How far the time of a request may be from this node's, in milliseconds. */
const maxSkewMillis = 5 * 60_000

/** Checks `header`, the proof that came with a request. */
export const check = (
  { keys, now, self }: PeerCheckOptions,
  { headers, method = "", url = "" }: IncomingMessage,
  header: string | ReadonlyArray<string>
): PeerChecked => {
  const proof = typeof header === "string" ? RequestProof.parse(header) : undefined
  if (proof === undefined) return { _tag: "Wrong", reason: "malformed", refusal: Refusal.PeerProofWrong() }
  const ring = keys.ring()
  const key = ring.find("registry", proof.keyId)
  if (key === undefined) {
    return { _tag: "Wrong", reason: "other_key", refusal: Refusal.PeerKeyUnknown({ accepted: ring.ids("registry") }) }
  }
  const request: RequestProof.SignedRequest = {
    receiver: self,
    method,
    target: url,
    range: headers.range,
    said: RequestProof.saidIn(headers)
  }
  // Before the time is looked at: only who has the key is told this node's time.
  if (!RequestProof.isRight(key, request, proof)) {
    return { _tag: "Wrong", reason: "bad_signature", refusal: Refusal.PeerProofWrong() }
  }
  const time = now()
  const answer: AnswerProof = { key, nonce: proof.nonce }
  return Math.abs(time - proof.time) <= maxSkewMillis
    ? { _tag: "Proved", key, proof: answer }
    : { _tag: "Wrong", reason: "clock", refusal: Refusal.PeerClockDiffers({ time }), proof: answer }
}
