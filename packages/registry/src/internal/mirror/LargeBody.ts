/**
 * A large body on its way to a client, from one peer after another: passed on as it comes, or hashed on the way. A hashed body
 * has its last chunk held back until its digest is known. A wrong body never becomes complete, so containerd does not commit it.
 */
import type * as Digest from "@spegel-ts/oci/Digest"
import type { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import { ClientSink } from "@spegel-ts/transfer/ClientSink"
import type { ByteSink, Judgement, PeerResponse, TransportError } from "@spegel-ts/transfer/PeerTransport"
import { Deferred, Effect } from "effect"
import type { Recipient } from "../serve/BlobBody.ts"
import { ContentHash } from "../verify/ContentHash.ts"

/** The digest and the size that the whole body must have. */
export interface Expected {
  readonly digest: Digest.Digest
  /** In bytes. */
  readonly size: number
}

export interface LargeBody {
  /** The resume offset: the byte of the whole that comes next, after all that was taken from peers for the client. */
  readonly offset: () => number
  /** Takes the rest of the body, or what a peer gives of it, from a response that begins at `offset`. */
  readonly take: (
    response: Pick<PeerResponse, "move" | "relay">,
    judgement: Judgement
  ) => Effect.Effect<void, TransportError | BodyInterrupted>
  /** Completes once the whole has turned out to be wrong; never otherwise. */
  readonly wrong: Effect.Effect<void>
}

/** Passes a body on, from `start` on. Its client verifies it. */
export const passing = (start: number, to: Recipient): LargeBody => ({
  offset: () => start + to.progress.moved,
  take: (response, judgement) => response.move(to, judgement),
  wrong: Effect.never
})

/** Read, hashed and sent at once. */
const chunkSize = 256 * 1024

/** Passes a whole body on, and hashes it in this process. */
export const hashed = ({ digest, size }: Expected, { client, progress }: Recipient): LargeBody => {
  const sink = new ClientSink(client, progress)
  const hash = new ContentHash(digest)
  const wrong = Deferred.makeUnsafe<void>()
  const buffer = Buffer.allocUnsafeSlow(Math.min(chunkSize, size))
  let offset = 0
  /** A chunk is on its way to the client; another peer's bytes wait for it. */
  let sending = false
  let whenSent = () => {}
  const settled = Effect.callback<void>((resume) => {
    if (!sending) return resume(Effect.void)
    whenSent = () => resume(Effect.void)
  })
  const bytes: ByteSink = {
    space: () => buffer,
    write: (chunk, resume) => {
      offset += chunk.length
      hash.update(chunk)
      if (offset === size && !hash.matches()) {
        Deferred.doneUnsafe(wrong, Effect.void)
        return false
      }
      const goOn = () => {
        sending = false
        whenSent()
        // Other requests have their turn first.
        setImmediate(resume)
      }
      sending = true
      if (sink.write(chunk, goOn)) goOn()
      return false
    }
  }
  return {
    offset: () => offset,
    take: (response, judgement) => Effect.andThen(settled, response.relay(bytes, judgement)),
    wrong: Deferred.await(wrong)
  }
}
