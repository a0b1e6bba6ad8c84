/**
 * Whether anybody has a file open for writing. The kernel grants a read lease (fcntl(2), F_SETLEASE) only of a file that
 * nobody has; asking costs a microsecond, and the lease is let go of at once. One who opens the file for writing in that
 * microsecond waits for its end.
 *
 * It needs foreign calls, the file's owner or CAP_LEASE, and a file system with leases.
 */
import { errno, type Libc, load, optional } from "./internal/mover/Libc.ts"

export type FileWriter = "open" | "none" | "unknown"

/** Found when it is asked for first: without a library for this system there are no foreign calls. */
let library: { readonly libc: Libc | undefined } | undefined

/** Whether the file of a descriptor is open for writing anywhere: by any process, this one included. */
export const writerOf = (descriptor: number): FileWriter => {
  library ??= { libc: optional(load) }
  const { libc } = library
  if (libc === undefined) return "unknown"
  if (libc.tryReadLease(descriptor) === 0) return "none"
  return libc.errno() === errno.EAGAIN ? "open" : "unknown"
}
