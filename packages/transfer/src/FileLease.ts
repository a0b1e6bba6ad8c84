/**
 * Tells whether any process has a file open for writing. The kernel grants a read lease (fcntl(2), F_SETLEASE) only on a file
 * that no process writes. Asking takes a microsecond, and the lease is released at once; a process that opens the file for
 * writing within that microsecond waits until then.
 *
 * It needs foreign calls (`@koromix/koffi-linux-*`), the file's owner or CAP_LEASE, and a file system with leases.
 */
import { errno, type Libc, load, optional } from "./internal/mover/Libc.ts"

/** `unknown`: the system cannot say. */
export type FileWriter = "open" | "none" | "unknown"

/** Loaded when it is first needed. Without a library for this system there are no foreign calls. */
let library: { readonly libc: Libc | undefined } | undefined

/** Whether any process, this one included, has the file of a descriptor open for writing. */
export const writerOf = (descriptor: number): FileWriter => {
  library ??= { libc: optional(load) }
  const { libc } = library
  if (libc === undefined) return "unknown"
  if (libc.tryReadLease(descriptor) === 0) return "none"
  return libc.errno() === errno.EAGAIN ? "open" : "unknown"
}
