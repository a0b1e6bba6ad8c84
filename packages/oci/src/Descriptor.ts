/** Content descriptors (OCI image specification, descriptor.md). */
import { Schema } from "effect"
import { Digest } from "./Digest.ts"

/** What a piece of content is: media type, digest and size in bytes. */
export class Descriptor extends Schema.Class<Descriptor>("@spegel-ts/oci/Descriptor")({
  mediaType: Schema.NonEmptyString,
  digest: Digest,
  size: Schema.Int.pipe(Schema.check(Schema.isGreaterThanOrEqualTo(0))),
  annotations: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  platform: Schema.optionalKey(Schema.Struct({
    os: Schema.String,
    architecture: Schema.String,
    variant: Schema.optionalKey(Schema.String)
  }))
}) {}
