/** Compares bytes with a digest. */
import { StoreUnavailable } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import { Effect } from "effect"
import { createHash } from "node:crypto"

/** Hashes bytes as they come. */
export class ContentHash {
  readonly #digest: Digest.Digest
  readonly #hash

  constructor(digest: Digest.Digest) {
    this.#digest = digest
    this.#hash = createHash(Digest.algorithm(digest))
  }

  update(bytes: Uint8Array): this {
    this.#hash.update(bytes)
    return this
  }

  /** Whether all bytes so far are those of the digest; more may follow. */
  matches(): boolean {
    return this.#hash.copy().digest("hex") === Digest.hex(this.#digest)
  }
}

/** The hash of a file that grows. Its effects fail if the file cannot be read. */
export interface GrowingHash {
  /** Hashes what has been added. */
  readonly advance: Effect.Effect<void, StoreUnavailable>
  /** Whether all bytes so far are those of the digest. */
  readonly matches: Effect.Effect<boolean, StoreUnavailable>
}

/**
 * `chunks` gives the bytes from an offset on; each is read once, one chunk after another, so that requests are answered in
 * between.
 */
export const growing = (digest: Digest.Digest, chunks: (start: number) => AsyncIterable<Buffer>): GrowingHash => {
  const hash = new ContentHash(digest)
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
  return { advance, matches: Effect.map(advance, () => hash.matches()) }
}
