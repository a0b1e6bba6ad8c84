/** Memory accounts: one for each client's connection that bodies are sent on, and one for each client address. */
import { pieceSize } from "@spegel-ts/transfer/ClientSink"
import type { Progress } from "@spegel-ts/transfer/Progress"
import type { Socket } from "node:net"

/** Memory in use, in bytes. */
export interface Use {
  /** Reserved for bodies, so that they move. */
  moving: number
  /** Held by the kernel beyond the reservations. */
  beyond: number
}

/** One client address. */
export interface Client extends Use {
  readonly address: string
  connections: number
}

/** This node's end of the connection on which a body comes from a peer, once it is known. */
export interface RelaySource {
  readonly receivingPort: number | undefined
}

export interface BodyConnection {
  readonly socket: Socket
  readonly client: Client
  /** Bodies being sent on it, and the bytes reserved for them. */
  bodies: number
  reserved: number
  /** The body being sent, and the bytes of it that had gone when that was last looked at. */
  progress: Progress | undefined
  moved: number
  /** The connection that the body comes on, and the bytes of it that the kernel holds unread. */
  relaying: RelaySource | undefined
  received: number
  /** Bytes that the kernel may hold unsent. */
  queued: number
  /** `socket.bytesWritten` when `queued` was updated. */
  written: number
  /** `queued` and `written` at the last measurement. */
  readonly last: { queued: number; written: number }
  /** Whether its client had taken at least half of what it was sent by the last measurement. */
  takes: boolean
  /** What it may have queued, whatever others hold. In bytes; more for a client that takes much between two measurements. */
  allowance: number
  /** This connection's part of the sums, of its client and of all. */
  readonly use: Use
  /** When its client last took a byte, as `performance.now()` has it. */
  movedAt: number
}

/** A connection on which nothing was sent yet. */
export const make = (socket: Socket, client: Client): BodyConnection => ({
  socket,
  client,
  bodies: 0,
  reserved: 0,
  progress: undefined,
  moved: 0,
  relaying: undefined,
  received: 0,
  queued: 0,
  written: 0,
  last: { queued: 0, written: 0 },
  takes: false,
  allowance: pieceSize,
  use: { moving: 0, beyond: 0 },
  movedAt: performance.now()
})
