/** What is known of a client's connection on which bodies are sent, and of the client. */
import type { Progress } from "@spegel-ts/transfer/Progress"
import type { Socket } from "node:net"

/** Memory in use, in bytes: what bodies need to move, and what is beyond it. */
export interface Use {
  moving: number
  beyond: number
}

export interface Client extends Use {
  readonly address: string
  connections: number
}

export interface Connection {
  readonly socket: Socket
  readonly client: Client
  /** Bodies that are being sent on it, and the bytes that are reserved for them. */
  bodies: number
  reserved: number
  /** The body that is being sent, and what of it had gone when that was looked at. */
  progress: Progress | undefined
  moved: number
  /** The connection on which its body comes from a peer, and what the kernel holds of that. */
  relaying: RelaySource | undefined
  received: number
  /** Bytes that the kernel may hold of it. */
  queued: number
  /** Bytes sent by the time that `queued` is of. */
  written: number
  /** Both of them when the kernel was last asked. */
  readonly last: { queued: number; written: number }
  /** Whether its client had taken by then at least as much as it had not. */
  takes: boolean
  /** What it counts for. */
  readonly use: Use
  movedAt: number
}

/** This node's end of the connection on which a body comes, once it is known. */
export interface RelaySource {
  readonly receivingPort: number | undefined
}

/** A connection on which nothing is sent yet. */
export const connectionOf = (socket: Socket, client: Client): Connection => ({
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
  use: { moving: 0, beyond: 0 },
  movedAt: performance.now()
})
