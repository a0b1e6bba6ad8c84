/**
 * Content digests as the OCI image specification writes them (`algorithm:encoded`). Registered algorithms only:
 * sha256 and sha512 with lower-case hexadecimal encodings of the right length.
 */
import { Option, Schema } from "effect"
import { createHash } from "node:crypto"

/** `sha256:<64 hex>` or `sha512:<128 hex>`. */
export const Digest = Schema.String.pipe(
  Schema.check(
    Schema.isPattern(/^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/, {
      message: "expected sha256: and 64, or sha512: and 128 lower-case hexadecimal digits"
    })
  ),
  Schema.brand("@spegel-ts/oci/Digest")
)
export type Digest = typeof Digest.Type

/** Whether a value is a digest in its one right spelling. */
export const isDigest = Schema.is(Digest)

/** The digest that `text` is, if it is one. */
export const fromString = (text: string): Option.Option<Digest> => isDigest(text) ? Option.some(text) : Option.none()

/** The sha256 digest of `bytes`. */
export const ofBytes = (bytes: Uint8Array): Digest =>
  Digest.make(`sha256:${createHash("sha256").update(bytes).digest("hex")}`)

/** `sha256` or `sha512`. */
export const algorithm = (digest: Digest): "sha256" | "sha512" => digest.startsWith("sha256:") ? "sha256" : "sha512"

/** The part behind the colon. */
export const hex = (digest: Digest): string => digest.slice(digest.indexOf(":") + 1)
