/** The `Range` header for one range of bytes (RFC 9110, section 14). */
import { Data, Option, Result } from "effect"

/** Bytes `[start, end)`: `end` is exclusive, unlike on the wire. Never empty. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

/** The range lies beyond the end of `size` bytes: status 416. */
export class RangeNotSatisfiable extends Data.TaggedError("RangeNotSatisfiable")<{ readonly size: number }> {
  override get message() {
    return `the range lies outside the ${this.size} bytes`
  }
}

const oneRange = /^bytes=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*$/i

/**
 * The range asked of a representation of `size` bytes. A server may ignore what it does not support (section 14.2):
 * other units, several ranges and malformed headers give none, i.e. the whole. So does any range of an empty
 * representation: clients that send `bytes=0-` with every request are content with nothing, and a 416 would fail them.
 */
export const parse = (
  header: string | undefined,
  size: number
): Result.Result<Option.Option<ByteRange>, RangeNotSatisfiable> => {
  const match = header === undefined ? null : oneRange.exec(header)
  if (match === null || size === 0) return Result.succeed(Option.none())
  const [, first, last, suffix] = match
  if (suffix !== undefined) {
    const length = Number(suffix)
    if (length === 0) return Result.fail(new RangeNotSatisfiable({ size }))
    return Result.succeed(Option.some({ start: Math.max(0, size - length), end: size }))
  }
  // Compared as integers of any size: two huge numbers must not become the same double.
  if (last && BigInt(last) < BigInt(first ?? "")) return Result.succeed(Option.none())
  const start = Number(first)
  if (start >= size) return Result.fail(new RangeNotSatisfiable({ size }))
  return Result.succeed(Option.some({ start, end: last ? Math.min(Number(last) + 1, size) : size }))
}

/** The first byte position of a range that names one: not of a suffix. */
export const firstByte = (header: string | undefined): Option.Option<number> => {
  const first = header === undefined ? undefined : oneRange.exec(header)?.[1]
  return first === undefined || !Number.isSafeInteger(Number(first)) ? Option.none() : Option.some(Number(first))
}

/** The first byte position of an open-ended range (`bytes=N-`), the only form in which containerd resumes. */
export const openStart = (header: string | undefined): Option.Option<number> =>
  header !== undefined && oneRange.exec(header)?.[2] === "" ? firstByte(header) : Option.none()

/** The `Content-Range` of a 206 answer. */
export const contentRange = (range: ByteRange, size: number): string => `bytes ${range.start}-${range.end - 1}/${size}`

/** The `Content-Range` of a 416 answer. */
export const unsatisfiedRange = (size: number): string => `bytes */${size}`
