/** The parts that all moves have in common. */
import type { Progress } from "../../Progress.ts"
import { epoll, errno, type Libc } from "./Libc.ts"
import type { Poll, Watched } from "./Poll.ts"
import type { Ending, Job } from "./Protocol.ts"

/** How many bytes of one body are moved in a row, before others have their turn. */
export const turnBytes = 4 * 1024 * 1024

/** A move waits for a descriptor that it has armed, or for a time. */
export type Waits = { readonly napMillis: number } | "armed"

/** A body that is being moved. */
export interface Move {
  /** Moves what can be moved now; returns how it ended, or what it waits for. */
  readonly step: () => Ending | Waits
}

/** The parts that every move needs. */
export interface Tools {
  readonly libc: Libc
  readonly poll: Poll
  readonly job: Job
  readonly client: Watched
  readonly progress: Progress
}

/**
 * Waits until the client takes bytes. A broken connection wakes it too, and then the next call fails. At all other times Node
 * notices a broken connection, since it keeps reading from the client.
 */
export const waitForRoom = ({ client, poll }: Tools): Waits => {
  poll.arm(client, epoll.OUT)
  return "armed"
}

/** Errors of the client's connection: EPIPE, and those of the network, from ENETDOWN to EHOSTUNREACH. */
const isOfClient = (code: number): boolean =>
  code === errno.EPIPE || (code >= errno.ENETDOWN && code <= errno.EHOSTUNREACH)

/** The end of a move whose client takes no more bytes. */
export const endOfClient = (code: number): Ending =>
  isOfClient(code) ? { _tag: "ClientGone" } : { _tag: "Failed", reason: `errno ${code}` }

/** Whether the call may succeed when it is tried again. */
export const isTransient = (code: number): boolean => code === errno.EAGAIN || code === errno.EINTR
