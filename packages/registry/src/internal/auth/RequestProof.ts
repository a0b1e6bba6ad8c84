/**
 * The proof that a peer sends with a request: `x-spegel-auth: v1 <key id> <Unix time in ms> <nonce> <signature>`. The signature
 * is about the receiver and everything that the request asks for, so the proof is worth nothing elsewhere or for anything else.
 */
import type { Parts, PurposeKey } from "@spegel-ts/cluster-key/KeyRing"
import type { HttpRequest } from "@spegel-ts/oci/DistributionRequest"
import { randomBytes } from "node:crypto"
import { leaseHeader } from "../flight/Lease.ts"
import { inProgressHeader } from "../share/DownloadState.ts"
import { suspectHeader } from "../verify/SuspectHeader.ts"

/** The header of the proofs of requests and of answers. */
export const proofHeader = "x-spegel-auth"
/** The ids of the keys that a node accepts, with its refusal of a request that is signed with another one. */
export const keysHeader = "x-spegel-keys"

/** A proof as it came: not yet known to be right. */
export interface RequestProof {
  readonly keyId: string
  /** When the request was sent by its sender's clock, in milliseconds since the epoch. */
  readonly time: number
  /** Random, and different in each request: the answer's proof repeats it. */
  readonly nonce: string
  readonly signature: Buffer
}

/** What a request asks for, and of whom. */
export interface SignedRequest {
  /** The peer id of the node that is asked. */
  readonly receiver: string
  readonly method: string
  /** Path and query, as they are sent. */
  readonly target: string
  /** The `Range` header. */
  readonly range: string | undefined
  /** What else it says: the names and values of the headers in `saidHeaders` that it has, as `saidIn` gives them. */
  readonly said: ReadonlyArray<string>
}

const partsOf = (
  { method, range = "", receiver, said, target }: SignedRequest,
  time: number,
  nonce: string
): Parts => ["request", receiver, method, target, range, String(time), nonce, ...said]

/** By these a request accuses the receiver, takes unverified bytes, or asks for a lease. */
const saidHeaders = [suspectHeader, inProgressHeader, leaseHeader]

/** What the headers of a request say beside the range. */
export const saidIn = (headers: HttpRequest["headers"]): ReadonlyArray<string> =>
  saidHeaders.flatMap((name) => {
    const value = headers[name]
    return value === undefined ? [] : [name, typeof value === "string" ? value : value.join(", ")]
  })

export const newNonce = (): string => randomBytes(16).toString("base64url")

/** The header of a request that is sent at `time`. */
export const print = (key: PurposeKey, request: SignedRequest, time: number, nonce: string): string =>
  `v1 ${key.id} ${time} ${nonce} ${key.sign(partsOf(request, time, nonce)).toString("base64url")}`

const form = /^v1 ([0-9a-f]{16}) ([0-9]{1,15}) ([A-Za-z0-9_-]{22}) ([A-Za-z0-9_-]{43})$/

/** The proof in a header; undefined if it is none. */
export const parse = (header: string): RequestProof | undefined => {
  const [, keyId, time, nonce, signature] = form.exec(header) ?? []
  return keyId === undefined || nonce === undefined || signature === undefined
    ? undefined
    : { keyId, time: Number(time), nonce, signature: Buffer.from(signature, "base64url") }
}

/** Whether `key` made the proof, for this request. Says nothing about its time. */
export const isRight = (key: PurposeKey, request: SignedRequest, { nonce, signature, time }: RequestProof): boolean =>
  key.verifies(partsOf(request, time, nonce), signature)
