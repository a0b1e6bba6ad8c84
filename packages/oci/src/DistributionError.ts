/** Errors of the distribution API (OCI distribution specification 1.1, "Error codes"). */
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

/** An answer with an error: its HTTP status, its code, and a message for people. */
export class DistributionError extends Data.TaggedError("DistributionError")<{
  readonly code: Code
  /** HTTP status. */
  readonly status: number
  readonly message: string
  /** Data about the error for programs, as the specification allows. */
  readonly detail?: Schema.Json | undefined
}> {
  /** The body of the answer, JSON as the specification has it. */
  body(): string {
    return JSON.stringify({ errors: [{ code: this.code, message: this.message, detail: this.detail }] })
  }
}

const constructor = (code: Code, status: number) => (message: string, detail?: Schema.Json): DistributionError =>
  new DistributionError({ code, status, message, detail })

/** 404: the blob is not here. containerd asks the next host. */
export const blobUnknown = constructor("BLOB_UNKNOWN", 404)
/** 404: the manifest is not here. containerd asks the next host. */
export const manifestUnknown = constructor("MANIFEST_UNKNOWN", 404)
/** 404: no such repository, or no such path of the API. */
export const nameUnknown = constructor("NAME_UNKNOWN", 404)
/** 400: the path or a query parameter is malformed. */
export const nameInvalid = constructor("NAME_INVALID", 400)
/** 414: no legal request is so long. */
export const uriTooLong = constructor("NAME_INVALID", 414)
/** 400: the digest is malformed, or of an unknown algorithm. */
export const digestInvalid = constructor("DIGEST_INVALID", 400)
/** 400: the tag is malformed. Not in the OCI list; distribution/distribution has this code. */
export const tagInvalid = constructor("TAG_INVALID", 400)
/** 416: the range lies outside of the content. Not in the OCI list; distribution/distribution has this code. */
export const rangeInvalid = constructor("RANGE_INVALID", 416)
/** 401: credentials are missing or wrong. */
export const unauthorized = constructor("UNAUTHORIZED", 401)
/** 405: known to the specification, and not offered by a read-only mirror. */
export const unsupported = constructor("UNSUPPORTED", 405)
/** 503: this node cannot serve now (probes, admission). Not in the OCI list. */
export const unavailable = constructor("UNAVAILABLE", 503)
