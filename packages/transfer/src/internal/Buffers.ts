/** Buffers of the portable layer, one a stream, used again instead of being collected. */

/** A large read costs least a byte, as long as what was read is still in the core's cache when it is sent. */
const size = 512 * 1024
/** Buffers that are kept. With more streams at once, each further one makes its own. */
const maxKept = 8

/**
 * Offset of a buffer within its memory. Large memory begins 16 bytes into a page, where malloc maps it; an AMD EPYC
 * copies a file's cached pages to there, 8 to 31 bytes beyond a page's begin, several times as slowly as elsewhere.
 */
const allocationOffset = 48

const kept: Array<Buffer> = []

const allocate = (bytes: number): Buffer => Buffer.allocUnsafeSlow(allocationOffset + bytes).subarray(allocationOffset)

/** A buffer for a stream of which so many bytes are left; it may have another size. */
export const acquire = (left: number): Buffer => kept.pop() ?? allocate(Math.min(size, left))

/** Only when nobody reads or writes the buffer any more. */
export const release = (buffer: Buffer): void => {
  if (buffer.length === size && kept.length < maxKept) kept.push(buffer)
}
