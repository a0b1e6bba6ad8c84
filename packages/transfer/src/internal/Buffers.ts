/** The buffers of the portable layer: one for each stream. A few are large, and reused so that they are not garbage. */
import { pieceSize } from "../ClientSink.ts"

/** Large reads cost least per byte, as long as what was read is still in the core's cache when it is sent. */
const large = 512 * 1024
/** How many streams may have a large one at a time. Further ones get what bodies count as: a piece. */
export const maxLarge = 8

/**
 * The offset of a buffer within its memory. malloc maps large memory 16 bytes into a page. An AMD EPYC copies cached pages
 * of a file several times more slowly to an address 8 to 31 bytes into a page than to others.
 */
const allocationOffset = 48

const kept: Array<Buffer> = []
/** Those kept and those in use. */
let count = 0

const allocate = (bytes: number): Buffer => Buffer.allocUnsafeSlow(allocationOffset + bytes).subarray(allocationOffset)

/** A buffer for a stream that has this many bytes left. It may have another size. */
export const acquire = (left: number): Buffer => {
  if (left <= pieceSize) return allocate(left)
  const buffer = kept.pop()
  if (buffer !== undefined) return buffer
  if (count >= maxLarge) return allocate(pieceSize)
  count++
  return allocate(large)
}

/** Takes a buffer back, which is used for another stream if nobody reads or writes it any more. */
export const release = (buffer: Buffer, isIdle: boolean): void => {
  if (buffer.length !== large) return
  if (isIdle) kept.push(buffer)
  else count--
}
