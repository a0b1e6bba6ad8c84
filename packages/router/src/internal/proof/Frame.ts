/** The frames of the exchange in which two nodes prove their membership. docs/router.md has them byte by byte. */
import { signatureLength } from "@spegel-ts/cluster-key/KeyRing"
import { type FailureReason, ProofFailed } from "./ProofFailure.ts"

export type Frame =
  /** The initiator accepts these keys. */
  | { readonly _tag: "Opening"; readonly nonce: Uint8Array; readonly keyIds: ReadonlyArray<string> }
  /** The responder has chosen one of them, and proves that it knows it. */
  | {
    readonly _tag: "Answer"
    readonly keyId: string
    readonly nonce: Uint8Array
    readonly signature: Uint8Array
    /** A statement, as it was signed. */
    readonly statement: Uint8Array
  }
  /** The initiator proves it too. */
  | { readonly _tag: "Confirmation"; readonly signature: Uint8Array; readonly statement: Uint8Array }
  /** The responder takes the initiator for a member. */
  | { readonly _tag: "Accepted" }
  /** The sender does not take the receiver for a member. */
  | { readonly _tag: "Refusal"; readonly reason: FailureReason }

/** In bytes; a larger frame ends the exchange. */
export const maxFrameSize = 4096

const kinds = { Opening: 1, Answer: 2, Confirmation: 3, Accepted: 4, Refusal: 5 } as const
const refusals: ReadonlyArray<FailureReason> = [
  "other_key",
  "bad_signature",
  "malformed",
  "timeout",
  "downgrade",
  "unproved"
]

export const nonceLength = 16
/** Of a key id in bytes; as text, it has two hexadecimal digits for each. */
const keyIdLength = 8
const maxKeyIds = 8

const keyIdBytes = (id: string): Uint8Array => Buffer.from(id, "hex")

/** Writes a frame, without its length. */
export const encode = (frame: Frame): Uint8Array => {
  const kind = Uint8Array.of(kinds[frame._tag])
  switch (frame._tag) {
    case "Opening":
      return Buffer.concat([kind, frame.nonce, ...frame.keyIds.slice(0, maxKeyIds).map(keyIdBytes)])
    case "Answer":
      return Buffer.concat([kind, keyIdBytes(frame.keyId), frame.nonce, frame.signature, frame.statement])
    case "Confirmation":
      return Buffer.concat([kind, frame.signature, frame.statement])
    case "Accepted":
      return kind
    case "Refusal":
      return Buffer.concat([kind, Uint8Array.of(refusals.indexOf(frame.reason) + 1)])
  }
}

/** Reads a frame. Throws `ProofFailed`. */
export const decode = (bytes: Uint8Array): Frame => {
  const view = Buffer.from(bytes)
  let position = 1
  const take = (length: number) => {
    if (position + length > view.length) throw new ProofFailed("malformed")
    const taken = view.subarray(position, position + length)
    position += length
    return taken
  }
  const rest = () => take(view.length - position)
  switch (view[0]) {
    case kinds.Opening: {
      const nonce = take(nonceLength)
      const keyIds: Array<string> = []
      while (position < view.length && keyIds.length < maxKeyIds) keyIds.push(take(keyIdLength).toString("hex"))
      return { _tag: "Opening", nonce, keyIds }
    }
    case kinds.Answer:
      return {
        _tag: "Answer",
        keyId: take(keyIdLength).toString("hex"),
        nonce: take(nonceLength),
        signature: take(signatureLength),
        statement: rest()
      }
    case kinds.Confirmation:
      return { _tag: "Confirmation", signature: take(signatureLength), statement: rest() }
    case kinds.Accepted:
      return { _tag: "Accepted" }
    case kinds.Refusal:
      return { _tag: "Refusal", reason: refusals[(take(1)[0] ?? 0) - 1] ?? "malformed" }
    default:
      throw new ProofFailed("malformed")
  }
}
