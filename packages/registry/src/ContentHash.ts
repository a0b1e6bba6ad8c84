/** Whether bytes that are here are those of a digest. */
import { StoreUnavailable } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import { Effect } from "effect"
import { createHash } from "node:crypto"

/** Chunks are read one after another, so that requests are answered in between. Fails where they cannot be read. */
export const matches = (
  digest: Digest.Digest,
  chunks: AsyncIterable<Buffer>
): Effect.Effect<boolean, StoreUnavailable> =>
  Effect.tryPromise({
    try: async () => {
      const hash = createHash(Digest.algorithm(digest))
      for await (const chunk of chunks) hash.update(chunk)
      return hash.digest("hex") === Digest.hex(digest)
    },
    catch: (cause) => new StoreUnavailable({ operation: `read ${digest}`, hint: "is the disk all right?", cause })
  })
