/** Content that peers have and will send. */
import type * as ByteRange from "@spegel-ts/oci/ByteRange"
import type * as Digest from "@spegel-ts/oci/Digest"
import type { Peer } from "@spegel-ts/router/Peer"
import type { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import type { Effect, Option } from "effect"
import type { Recipient } from "./internal/serve/BlobBody.ts"
import type { ContentCorrupted, MirrorError } from "./MirrorError.ts"

/** The head of the answer to the client, and the body that belongs to it. */
export interface MirroredContent {
  /** The peer that answered; others may send parts of the body. */
  readonly peer: Peer
  readonly digest: Digest.Digest
  readonly mediaType: string
  /** Size of the whole in bytes. */
  readonly size: number
  /** The part that `body` gives; none for the whole. */
  readonly range: Option.Option<ByteRange.ByteRange>
  readonly body: MirroredBody
}

/**
 * A body from peers. `Verified` is complete, in memory, and has the right digest: manifests, configs and blobs up to
 * `verifySize`. `Stream` is larger and is passed on as it comes.
 */
export type MirroredBody =
  | { readonly _tag: "Verified"; readonly bytes: Uint8Array }
  | {
    readonly _tag: "Stream"
    /** Passes the body on, from one peer after another. Once only. */
    readonly relay: (to: Recipient) => Effect.Effect<void, StreamError>
  }

/**
 * The errors that end a body early: `BodyInterrupted` if the client has gone; a `MirrorError` if no peer is left that can go on,
 * so that the client takes the rest from upstream; `ContentCorrupted`, before the last byte, if the hash of the body is wrong.
 */
export type StreamError = MirrorError | ContentCorrupted | BodyInterrupted
