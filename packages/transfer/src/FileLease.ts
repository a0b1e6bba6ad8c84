/**
 * Whether anybody has a file open for writing. The kernel grants a read lease (fcntl(2), F_SETLEASE) only of a file that
 * nobody has; asking costs a microsecond, and the lease is let go of at once. One who opens the file for writing in that
 * microsecond waits for its end.
 *
 * It needs foreign calls, the file's owner or CAP_LEASE, and a file system with leases.
 */
import { errno, type Libc, load } from "./internal/mover/Libc.ts"

export type FileWriter = "open" | "none" | "unknown"

/** Undefined where there are no foreign calls. */
let libc: Libc | undefined
let loaded = false

/** Whether the file of a descriptor is open for writing anywhere: by any process, this one included. */
export const writerOf = (descriptor: number): FileWriter => {
  if (!loaded) {
    loaded = true
    try {
      libc = load()
    } catch {
      // Not Linux, or no library for this processor.
    }
  }
  if (libc === undefined) return "unknown"
  if (libc.tryReadLease(descriptor) === 0) return "none"
  return libc.errno() === errno.EAGAIN ? "open" : "unknown"
}
