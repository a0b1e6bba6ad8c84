/** The memory that a body gets when it begins, so that it moves however much other bodies use. */
import * as BodyBounds from "@spegel-ts/transfer/BodyBounds"
import { pieceSize } from "@spegel-ts/transfer/ClientSink"
import type { DataPlane } from "@spegel-ts/transfer/DataPlane"

/** A file's body, or one that comes from a peer. */
export type BodyKind = "file" | "relay"

/** Bytes reserved for a body of each kind, and the share of the whole budget that reservations may use. */
export interface Reserve extends Readonly<Record<BodyKind, number>> {
  readonly share: number
}

/** A buffer of this process, and as much in the socket. The socket of a slow client may hold more while there is room. */
const throughProcess: Reserve = { share: 0.3, file: 2 * pieceSize, relay: 2 * pieceSize }

/** All that the kernel may hold, because nothing can stop it from doing so. Little else is needed. */
const withinKernel: Reserve = {
  share: 0.9,
  file: BodyBounds.ofFile + pieceSize,
  relay: BodyBounds.ofRelay + pieceSize
}

export const reserveOf = (plane: DataPlane["name"]): Reserve => plane === "zero-copy" ? withinKernel : throughProcess
