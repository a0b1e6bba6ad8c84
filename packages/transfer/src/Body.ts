/** Bodies: their sources, their clients, and the ways in which a move ends. */
import { Data } from "effect"
import type { FileHandle } from "node:fs/promises"
import type { Socket } from "node:net"
import type { PeerSocket } from "./PeerSocket.ts"
import type { Progress } from "./Progress.ts"

/** The source of a body. */
export type Source =
  | {
    readonly _tag: "File"
    readonly handle: FileHandle
    /** The first byte to send. */
    readonly offset: number
  }
  | {
    /** A file that is still being written. `move` waits at its end for more; the caller interrupts if no more will come. */
    readonly _tag: "GrowingFile"
    readonly handle: FileHandle
    readonly offset: number
  }
  | {
    /** A peer's connection, positioned in the body of its response. Nothing else may read from it meanwhile. */
    readonly _tag: "Peer"
    readonly peer: PeerSocket
    /** The body's first bytes, which arrived with the response's head. At least one, unless the body is empty. */
    readonly early: Buffer
  }

/**
 * Bounds what is sent to a client through this process, which the kernel would otherwise buffer up to `net.ipv4.tcp_wmem`.
 * Bodies that move within the kernel are not asked about: they have a bound already (`BodyBounds`).
 */
export interface SendRoom {
  /** Whether this many bytes may be sent now. */
  readonly hasRoom: (bytes: number) => boolean
  /** Calls `resume` once, when there is room or the client has gone. */
  readonly whenRoom: (bytes: number, resume: () => void) => void
}

/** The client of a body. */
export interface Client {
  /** Nothing else may write to it meanwhile. Node keeps reading from it, and so notices when the client leaves. */
  readonly socket: Socket
  /** Writes the response's head to the socket. Called once, when the first byte of the body is in hand. */
  readonly begin?: (() => void) | undefined
  readonly room?: SendRoom | undefined
}

/** A body, or the rest of one. */
export interface Body {
  readonly source: Source
  readonly client: Client
  /** Bytes to move, the early ones of a peer included. */
  readonly length: number
  /** Counts the bytes as they move. */
  readonly progress: Progress
}

/** A body that was moved to its last byte. */
export interface Moved {
  /**
   * The source's state after its last byte, as far as it is known by then. A peer's connection may be used again only if
   * it was quiet.
   */
  readonly source: "quiet" | "closed" | "sent more"
}

/** The client closed its connection, or half of it. Nothing more can be sent. */
export class ClientGone extends Data.TaggedError("ClientGone") {
  override get message() {
    return "the client closed the connection before the body was complete"
  }
}

/**
 * The source ended too early: a file is too short, or a peer closed or reset its connection. The client has every byte that
 * came, and another source can continue at `Progress.moved`.
 */
export class SourceEnded extends Data.TaggedError("SourceEnded")<{
  readonly reason: string
  /** The number of bytes that are missing. */
  readonly missing: number
}> {
  override get message() {
    return `${this.reason} ${this.missing} bytes early`
  }
}

/** The layer is being closed. Nothing more can be moved. */
export class TransferAborted extends Data.TaggedError("TransferAborted") {
  override get message() {
    return "the data plane is shutting down"
  }
}

/** The mover is broken; the source is not to blame. The rest of the body can be moved from `Progress.moved` on. */
export class TransferFailed extends Data.TaggedError("TransferFailed")<{ readonly reason: string }> {
  override get message() {
    return `the body could not be moved: ${this.reason}`
  }
}

/** How a move fails. */
export type TransferError = ClientGone | SourceEnded | TransferAborted | TransferFailed
