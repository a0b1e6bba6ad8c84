/**
 * The head of a peer's HTTP/1.1 response, parsed strictly (RFC 9112). Peers are untrusted: a head that two parsers could
 * read in two ways is refused.
 */
import { Data, Result } from "effect"

/** The `Content-Range` of a 206 response (RFC 9110, section 14.4). In bytes; `end` is the last one, as on the wire. */
export interface ContentRange {
  readonly start: number
  readonly end: number
  /** The size of the whole. */
  readonly size: number
}

export interface ResponseHead {
  readonly status: number
  /** Header fields by lower-case name. The last one counts; a repeated field that frames the body is refused. */
  readonly headers: ReadonlyMap<string, string>
  /** The size of the body that follows, in bytes. */
  readonly contentLength: number
  /** The part of the whole that the body is; undefined if the head does not name one, or not properly. */
  readonly contentRange: ContentRange | undefined
}

/** The response is not HTTP as a registry speaks it. */
export class InvalidResponseHead extends Data.TaggedError("InvalidResponseHead")<{ readonly reason: string }> {
  override get message() {
    return `invalid HTTP response: ${this.reason}`
  }
}

/** The longest head accepted, in bytes. */
export const maxHeadSize = 16 * 1024

const statusLine = /^HTTP\/1\.1 ([2-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?$/
const field = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*$/

/** Fields that say where the body ends, and how it is coded: a repeated one could be read in two ways. */
const framing: ReadonlySet<string> = new Set([
  "content-encoding",
  "content-length",
  "content-range",
  "transfer-encoding"
])

/** The offset just behind the empty line that ends a head, or -1 if it has not arrived yet. */
export const headEnd = (bytes: Buffer): number => {
  const end = bytes.indexOf("\r\n\r\n")
  return end === -1 ? -1 : end + 4
}

/** Parses a whole head, its empty line included. Refuses 1xx responses, and chunked and compressed bodies. */
export const parse = (bytes: Buffer): Result.Result<ResponseHead, InvalidResponseHead> => {
  const invalid = (reason: string) => Result.fail(new InvalidResponseHead({ reason }))
  if (bytes.length > maxHeadSize) return invalid(`head longer than ${maxHeadSize} bytes`)
  const [first = "", ...lines] = bytes.toString("latin1", 0, bytes.length - 4).split("\r\n")
  const status = statusLine.exec(first)?.[1]
  if (status === undefined) return invalid("no final HTTP/1.1 status line")

  const headers = new Map<string, string>()
  for (const line of lines) {
    // Obsolete folding does not match either: its lines begin with a blank.
    const match = field.exec(line)
    if (match === null) return invalid("malformed header field")
    const name = (match[1] ?? "").toLowerCase()
    if (headers.has(name) && framing.has(name)) return invalid(`${name} given twice`)
    headers.set(name, match[2] ?? "")
  }
  if (headers.has("transfer-encoding")) return invalid("a body of unknown length")
  const coding = headers.get("content-encoding")
  if (coding !== undefined && coding.toLowerCase() !== "identity") return invalid("a coded body")
  const bodiless = status === "204" || status === "304"
  const length = headers.get("content-length") ?? (bodiless ? "0" : undefined)
  if (length === undefined || !/^[0-9]{1,15}$/.test(length)) return invalid("no valid Content-Length")
  return Result.succeed({
    status: Number(status),
    headers,
    contentLength: Number(length),
    contentRange: contentRangeOf(headers.get("content-range"))
  })
}

const contentRangeOf = (field: string | undefined): ContentRange | undefined => {
  const match = /^bytes ([0-9]{1,15})-([0-9]{1,15})\/([0-9]{1,15})$/.exec(field ?? "")
  const [start, end, size] = [Number(match?.[1]), Number(match?.[2]), Number(match?.[3])]
  return match !== null && start <= end && end < size ? { start, end, size } : undefined
}
