/** The buffers of the portable layer: one for each stream, reused so that they are not garbage. */

/** Large reads cost least per byte, as long as what was read is still in the core's cache when it is sent. */
const size = 512 * 1024
/** How many buffers are kept. When there are more streams, each further one makes its own. */
const maxKept = 8

/**
 * The offset of a buffer within its memory. malloc maps large memory 16 bytes into a page. An AMD EPYC copies cached pages
 * of a file several times more slowly to an address 8 to 31 bytes into a page than to others.
 */
const allocationOffset = 48

const kept: Array<Buffer> = []

const allocate = (bytes: number): Buffer => Buffer.allocUnsafeSlow(allocationOffset + bytes).subarray(allocationOffset)

/** A buffer for a stream that has this many bytes left. It may have another size. */
export const acquire = (left: number): Buffer => kept.pop() ?? allocate(Math.min(size, left))

/** Keeps a buffer for another stream. Call it only when nobody reads or writes the buffer any more. */
export const release = (buffer: Buffer): void => {
  if (buffer.length === size && kept.length < maxKept) kept.push(buffer)
}
