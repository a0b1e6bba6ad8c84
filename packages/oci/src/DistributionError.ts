/** Errors as registries tell them (OCI distribution specification 1.1, "Error codes"). */
import { Data, type Schema } from "effect"

/** The codes of the specification, and the three below that it lacks. */
export type Code =
  | "BLOB_UNKNOWN"
  | "BLOB_UPLOAD_INVALID"
  | "BLOB_UPLOAD_UNKNOWN"
  | "DENIED"
  | "DIGEST_INVALID"
  | "MANIFEST_BLOB_UNKNOWN"
  | "MANIFEST_INVALID"
  | "MANIFEST_UNKNOWN"
  | "NAME_INVALID"
  | "NAME_UNKNOWN"
  | "RANGE_INVALID"
  | "SIZE_INVALID"
  | "TAG_INVALID"
  | "TOOMANYREQUESTS"
  | "UNAUTHORIZED"
  | "UNAVAILABLE"
  | "UNSUPPORTED"

export class DistributionError extends Data.TaggedError("DistributionError")<{
  readonly code: Code
  /** HTTP status. */
  readonly status: number
  readonly message: string
  /** Data about the error, for programs. */
  readonly detail?: Schema.Json | undefined
}> {
  /** The JSON body that the specification gives errors. */
  body(): string {
    return JSON.stringify({ errors: [{ code: this.code, message: this.message, detail: this.detail }] })
  }
}

const constructor = (code: Code, status: number) => (message: string, detail?: Schema.Json): DistributionError =>
  new DistributionError({ code, status, message, detail })

export const blobUnknown = constructor("BLOB_UNKNOWN", 404)
export const manifestUnknown = constructor("MANIFEST_UNKNOWN", 404)
export const nameUnknown = constructor("NAME_UNKNOWN", 404)
export const nameInvalid = constructor("NAME_INVALID", 400)
export const uriTooLong = constructor("NAME_INVALID", 414)
export const digestInvalid = constructor("DIGEST_INVALID", 400)
/** Not in the OCI list; the code that distribution/distribution gives a malformed tag. */
export const tagInvalid = constructor("TAG_INVALID", 400)
/** Not in the OCI list; the code that distribution/distribution gives a 416. */
export const rangeInvalid = constructor("RANGE_INVALID", 416)
export const unauthorized = constructor("UNAUTHORIZED", 401)
/** Known to the specification, not offered by a read-only mirror. */
export const unsupported = constructor("UNSUPPORTED", 405)
/** Not in the OCI list; for a node that cannot serve now (probes, admission). */
export const unavailable = constructor("UNAVAILABLE", 503)
