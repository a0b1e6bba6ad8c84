/**
 * The proof that a node gives with its answer to a signed request: `x-spegel-auth: v1 <key id> <signature>`. It is about the
 * head of the answer and the request's nonce. The body needs none: its digest is in the head.
 */
import type { Parts, PurposeKey } from "@spegel-ts/cluster-key/KeyRing"
import type { OutgoingHttpHeaders } from "node:http"
import { leaseHeader } from "../flight/Lease.ts"
import { inProgressHeader } from "../share/DownloadState.ts"
import { proofHeader } from "./RequestProof.ts"

/** The time of a node that refused a request because of its time, in milliseconds since the epoch. */
export const timeHeader = "x-spegel-time"

/** How an answer is proved. */
export interface AnswerProof {
  /** The key that signed the request. */
  readonly key: PurposeKey
  /** The nonce of the request. */
  readonly nonce: string
}

/** The fields of the head that count. One that an answer lacks is signed as an empty text. */
const signedFields = ["docker-content-digest", "content-length", "content-type", "content-range", timeHeader]
/** Those that count where they are there, with their names. */
const signedExtras = [inProgressHeader, leaseHeader]

const partsOf = (nonce: string, status: number, field: (name: string) => string): Parts => [
  "answer",
  nonce,
  String(status),
  ...signedFields.map(field),
  ...signedExtras.flatMap((name) => field(name) === "" ? [] : [name, field(name)])
]

/** The header fields of an answer with its proof. They are as they were if `proof` is undefined. */
export const sign = (
  proof: AnswerProof | undefined,
  status: number,
  headers: OutgoingHttpHeaders
): OutgoingHttpHeaders => {
  if (proof === undefined) return headers
  const { key, nonce } = proof
  const signature = key.sign(partsOf(nonce, status, (name) => String(headers[name] ?? "")))
  return { ...headers, [proofHeader]: `v1 ${key.id} ${signature.toString("base64url")}` }
}

/** A head as it came. */
interface ReceivedHead {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
}

const form = /^v1 ([0-9a-f]{16}) ([A-Za-z0-9_-]{43})$/

/** Whether the head has the proof that `expected` describes. */
export const isRight = ({ key, nonce }: AnswerProof, { headers, status }: ReceivedHead): boolean => {
  const [, keyId, signature] = form.exec(headers.get(proofHeader) ?? "") ?? []
  return keyId === key.id && signature !== undefined &&
    key.verifies(partsOf(nonce, status, (name) => headers.get(name) ?? ""), Buffer.from(signature, "base64url"))
}
