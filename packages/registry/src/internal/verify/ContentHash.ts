/** Whether bytes that are here are those of a digest. */
import { StoreUnavailable } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import { Effect } from "effect"
import { createHash } from "node:crypto"

/** The hash of a file that grows. */
export interface GrowingHash {
  /** Hashes what has been added. */
  readonly advance: Effect.Effect<void, StoreUnavailable>
  /** Whether all bytes so far are those of the digest. */
  readonly matches: Effect.Effect<boolean, StoreUnavailable>
}

/** `chunks` gives the bytes from an offset on; each is read once. */
export const growing = (digest: Digest.Digest, chunks: (start: number) => AsyncIterable<Buffer>): GrowingHash => {
  const hash = createHash(Digest.algorithm(digest))
  let length = 0
  const advance = Effect.tryPromise({
    try: async () => {
      for await (const chunk of chunks(length)) {
        hash.update(chunk)
        length += chunk.length
      }
    },
    catch: (cause) => new StoreUnavailable({ operation: `read ${digest}`, hint: "is the disk all right?", cause })
  })
  return { advance, matches: Effect.map(advance, () => hash.copy().digest("hex") === Digest.hex(digest)) }
}

/** Chunks are read one after another, so that requests are answered in between. Fails where they cannot be read. */
export const matches = (
  digest: Digest.Digest,
  chunks: AsyncIterable<Buffer>
): Effect.Effect<boolean, StoreUnavailable> => growing(digest, () => chunks).matches
