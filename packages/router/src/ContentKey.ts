/**
 * The strings under which content is advertised: a digest (`sha256:<hex>`) for blobs and manifests, or a name
 * (`registry/repository:tag`) for tags. Go Spegel uses the same strings, so that it finds the same keys.
 */
import { Schema } from "effect"
import { hash } from "node:crypto"

/** A key of 1 to 512 characters. The router does not interpret it. */
export const ContentKey = Schema.String.pipe(
  Schema.check(Schema.isMinLength(1), Schema.isMaxLength(512)),
  Schema.brand("@spegel-ts/router/ContentKey")
)
/** A key of 1 to 512 characters. */
export type ContentKey = typeof ContentKey.Type

/** Brands a string; throws if it is empty or longer than 512 characters. */
export const make = (key: string): ContentKey => ContentKey.make(key)

/** The key in the DHT: the multihash (sha2-256, 34 bytes) of the text, as in Go Spegel. */
export const toDhtKey = (key: ContentKey): Uint8Array =>
  Buffer.concat([Uint8Array.of(0x12, 0x20), hash("sha256", key, "buffer")])
