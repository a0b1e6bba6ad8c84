/**
 * The head of a peer's HTTP/1.1 response, read strictly (RFC 9112): peers are untrusted, and a head that two parsers
 * could read in two ways is refused.
 */
import { Data, Result } from "effect"

export interface ResponseHead {
  readonly status: number
  /** By lower-case name. No field that counts here may be given twice. */
  readonly headers: ReadonlyMap<string, string>
  /** Bytes of the body that follow. */
  readonly contentLength: number
}

/** The peer does not speak HTTP as a registry does; `reason` says where it goes wrong. */
export class InvalidResponseHead extends Data.TaggedError("InvalidResponseHead")<{ readonly reason: string }> {
  override get message() {
    return `invalid HTTP response: ${this.reason}`
  }
}

/** Longest head accepted, in bytes. */
export const maxHeadSize = 16 * 1024

const statusLine = /^HTTP\/1\.1 ([2-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?$/
const field = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*$/

/** Fields that say what the body is: two of one kind could be read in two ways. */
const framing: ReadonlySet<string> = new Set([
  "content-encoding",
  "content-length",
  "content-range",
  "transfer-encoding"
])

/** Offset just behind the empty line that ends a head, or -1 where it is not there yet. */
export const headEnd = (bytes: Buffer): number => {
  const end = bytes.indexOf("\r\n\r\n")
  return end === -1 ? -1 : end + 4
}

/** Reads a whole head, its empty line included. Answers of 1xx, chunked and coded bodies are refused. */
export const parse = (bytes: Buffer): Result.Result<ResponseHead, InvalidResponseHead> => {
  const invalid = (reason: string) => Result.fail(new InvalidResponseHead({ reason }))
  if (bytes.length > maxHeadSize) return invalid(`head longer than ${maxHeadSize} bytes`)
  const [first = "", ...lines] = bytes.toString("latin1", 0, bytes.length - 4).split("\r\n")
  const status = statusLine.exec(first)?.[1]
  if (status === undefined) return invalid("no final HTTP/1.1 status line")

  const headers = new Map<string, string>()
  for (const line of lines) {
    // Also catches obsolete folding, whose lines begin with a blank.
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
  return Result.succeed({ status: Number(status), headers, contentLength: Number(length) })
}

/** `bytes start-end/size` of a 206 answer, `end` inclusive as on the wire. */
export const parseContentRange = (
  header: string | undefined
): Result.Result<{ readonly start: number; readonly end: number; readonly size: number }, InvalidResponseHead> => {
  const match = /^bytes ([0-9]{1,15})-([0-9]{1,15})\/([0-9]{1,15})$/.exec(header ?? "")
  const [start, end, size] = [Number(match?.[1]), Number(match?.[2]), Number(match?.[3])]
  return match !== null && start <= end && end < size
    ? Result.succeed({ start, end, size })
    : Result.fail(new InvalidResponseHead({ reason: "no valid Content-Range" }))
}
