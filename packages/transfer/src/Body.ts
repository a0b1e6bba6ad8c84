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
 * Says how much may be sent to a client now. It is asked for what goes through this process, since the kernel holds that
 * without a bound of ours; what moves within the kernel has a bound (`BodyBounds`).
 */
export interface SendRoom {
  readonly hasRoom: (bytes: number) => boolean
  /** Calls `resume` once there is room, or the client has gone. */
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
  readonly progress: Progress
}

/** A body that the client has whole. */
export interface Moved {
  /**
   * The source's behaviour after its last byte, as far as it is known by then. A peer's connection may be used again only
   * if it was quiet.
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
 * The source has no more bytes, too early: a file is too short, a peer closed or reset its connection. The client has
 * everything that came: another source may go on at the byte that `Progress.moved` tells.
 */
export class SourceEnded extends Data.TaggedError("SourceEnded")<{
  readonly reason: string
  /** Bytes that are missing. */
  readonly missing: number
}> {
  override get message() {
    return `${this.reason} ${this.missing} bytes early`
  }
}

/** The layer is being closed. */
export class TransferAborted extends Data.TaggedError("TransferAborted") {
  override get message() {
    return "the data plane is shutting down"
  }
}

/** The mover is broken. The source is not to blame; the rest of the body can still be moved from the byte reached. */
export class TransferFailed extends Data.TaggedError("TransferFailed")<{ readonly reason: string }> {
  override get message() {
    return `the body could not be moved: ${this.reason}`
  }
}

export type TransferError = ClientGone | SourceEnded | TransferAborted | TransferFailed
