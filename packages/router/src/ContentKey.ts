/**
 * The strings under which content is advertised: a digest (`sha256:<hex>`) for blobs and manifests, or a name
 * (`registry/repository:tag`) for tags. Nothing else is mixed in, so that Go Spegel finds the same keys.
 */
import { Schema } from "effect"

/** A key of at most 512 characters; what it says is the advertiser's business. */
export const ContentKey = Schema.String.pipe(
  Schema.check(Schema.isMinLength(1), Schema.isMaxLength(512)),
  Schema.brand("@spegel-ts/router/ContentKey")
)
export type ContentKey = typeof ContentKey.Type

/** Brands a string that is known to be a valid key; throws on an empty or overlong one. */
export const make = (key: string): ContentKey => ContentKey.make(key)
