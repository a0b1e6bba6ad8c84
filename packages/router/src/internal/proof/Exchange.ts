/**
 * The exchange in which two connected nodes prove to each other that they know the cluster key, without telling it. Noise or
 * TLS has proved both peer ids before.
 *
 * Each side signs its role and both ids, so that a signature cannot be sent back to its maker, nor passed on by a node in the
 * middle; and a nonce of each side, so that a recorded one is worth nothing.
 */
import type { KeyRing, Parts } from "@spegel-ts/cluster-key/KeyRing"
import { randomBytes } from "node:crypto"
import * as Frame from "./Frame.ts"
import { type FailureReason, ProofFailed } from "./ProofFailure.ts"
import * as Statement from "./Statement.ts"

/** The protocol's name. It is signed too, so that a later version cannot be taken for this one. */
export const proofProtocol = "/spegel-ts/proof/1.0.0"

/** Carries the frames of one exchange. */
export interface Channel {
  readonly send: (frame: Uint8Array) => void
  /** Resolves with the next frame. Rejects with `ProofFailed` if there is none. */
  readonly receive: () => Promise<Uint8Array>
}

/** One side of an exchange. */
export interface Side {
  readonly ring: KeyRing
  /** This node's peer id. */
  readonly self: string
  /** The peer id that the other side has proved. */
  readonly other: string
  readonly statement: Statement.Statement
}

/** What the other side has proved. */
export interface Proof {
  readonly keyId: string
  readonly statement: Statement.Statement
}

interface Transcript {
  readonly initiator: string
  readonly responder: string
  readonly initiatorNonce: Uint8Array
  readonly responderNonce: Uint8Array
}

const signed = (
  role: "initiator" | "responder",
  { initiator, initiatorNonce, responder, responderNonce }: Transcript,
  statement: Uint8Array
): Parts => [proofProtocol, role, initiator, responder, initiatorNonce, responderNonce, statement]

const send = (channel: Channel, frame: Frame.Frame): void => channel.send(Frame.encode(frame))

/** The next frame, which has to be of this kind. */
const receive = async <Tag extends Frame.Frame["_tag"]>(
  channel: Channel,
  tag: Tag
): Promise<Extract<Frame.Frame, { readonly _tag: Tag }>> => {
  const frame = Frame.decode(await channel.receive())
  if (frame._tag === tag) return frame as Extract<Frame.Frame, { readonly _tag: Tag }>
  throw new ProofFailed(frame._tag === "Refusal" ? frame.reason : "malformed")
}

/** Tells the other side why it is refused. */
const refuse = (channel: Channel, reason: FailureReason): never => {
  send(channel, { _tag: "Refusal", reason })
  throw new ProofFailed(reason)
}

/** Starts an exchange. Rejects with `ProofFailed`. */
export const initiate = async (channel: Channel, { other, ring, self, statement }: Side): Promise<Proof> => {
  const initiatorNonce = randomBytes(Frame.nonceLength)
  send(channel, { _tag: "Opening", nonce: initiatorNonce, keyIds: ring.ids("router") })
  const answer = await receive(channel, "Answer")
  const transcript = { initiator: self, responder: other, initiatorNonce, responderNonce: answer.nonce }
  const key = ring.find("router", answer.keyId) ?? refuse(channel, "other_key")
  if (!key.verifies(signed("responder", transcript, answer.statement), answer.signature)) {
    return refuse(channel, "bad_signature")
  }
  const proof = { keyId: key.id, statement: Statement.decode(answer.statement) }
  const own = Statement.encode(statement)
  const signature = key.sign(signed("initiator", transcript, own))
  send(channel, { _tag: "Confirmation", signature, statement: own })
  await receive(channel, "Accepted")
  return proof
}

/** Answers an exchange that the other side has started. Rejects with `ProofFailed`. */
export const respond = async (channel: Channel, { other, ring, self, statement }: Side): Promise<Proof> => {
  const opening = await receive(channel, "Opening")
  const key = ring.common("router", opening.keyIds) ?? refuse(channel, "other_key")
  const responderNonce = randomBytes(Frame.nonceLength)
  const transcript = { initiator: other, responder: self, initiatorNonce: opening.nonce, responderNonce }
  const own = Statement.encode(statement)
  const signature = key.sign(signed("responder", transcript, own))
  send(channel, { _tag: "Answer", keyId: key.id, nonce: responderNonce, signature, statement: own })
  const confirmation = await receive(channel, "Confirmation")
  if (!key.verifies(signed("initiator", transcript, confirmation.statement), confirmation.signature)) {
    return refuse(channel, "bad_signature")
  }
  const proof = { keyId: key.id, statement: Statement.decode(confirmation.statement) }
  send(channel, { _tag: "Accepted" })
  return proof
}
