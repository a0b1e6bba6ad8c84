/** Content descriptors (OCI image specification, descriptor.md). */
import { Option, Schema } from "effect"
import * as Digest from "./Digest.ts"
import * as JsonField from "./JsonField.ts"

/** Describes a piece of content: media type (empty if unknown), digest and size in bytes. */
export class Descriptor extends Schema.Class<Descriptor>("@spegel-ts/oci/Descriptor")({
  mediaType: Schema.String,
  digest: Digest.Digest,
  size: Schema.Int.pipe(Schema.check(Schema.isGreaterThanOrEqualTo(0))),
  annotations: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  platform: Schema.optionalKey(Schema.Struct({
    os: Schema.String,
    architecture: Schema.String,
    variant: Schema.optionalKey(Schema.String)
  }))
}) {}

const text = (value: unknown) => typeof value === "string" ? value : ""

const annotationsOf = (value: unknown): Pick<Descriptor, "annotations"> =>
  typeof value === "object" && value !== null
    ? { annotations: Object.fromEntries(Object.entries(value).filter(([, value]) => typeof value === "string")) }
    : {}

const platformOf = (value: unknown): Pick<Descriptor, "platform"> => {
  const [os, architecture, variant] = ["os", "architecture", "variant"].map((name) => text(JsonField.get(value, name)))
  return os && architecture ? { platform: { os, architecture, ...(variant ? { variant } : {}) } } : {}
}

/**
 * Reads a descriptor that somebody else wrote. Fields that are null or of a wrong type count as missing. None if the
 * digest is missing or of an unknown algorithm, or the size is not a size.
 */
export const read = (value: unknown): Option.Option<Descriptor> => {
  const size = JsonField.get(value, "size") ?? 0
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) return Option.none()
  return Option.map(Digest.fromString(text(JsonField.get(value, "digest"))), (digest) =>
    new Descriptor({
      mediaType: text(JsonField.get(value, "mediaType")),
      digest,
      size,
      ...annotationsOf(JsonField.get(value, "annotations")),
      ...platformOf(JsonField.get(value, "platform"))
    }))
}
