/** What a body is given at once of the memory for bodies, so that it moves whatever others do. */
import * as BodyBounds from "@spegel-ts/transfer/BodyBounds"
import { pieceSize } from "@spegel-ts/transfer/ClientSink"
import type { DataPlane } from "@spegel-ts/transfer/DataPlane"

/** A file's body, or one that comes from a peer. */
export type BodyKind = "file" | "relay"

/** Bytes for a body of each kind, and the part of all memory that is for them. */
export interface Reserve extends Readonly<Record<BodyKind, number>> {
  readonly share: number
}

/** A buffer of this process, and as much in the socket. More is in the socket of a slow client, where there is memory. */
const throughProcess: Reserve = { share: 0.3, file: 2 * pieceSize, relay: 2 * pieceSize }

/** All that the kernel may hold, since nobody can stop it. Little else is needed. */
const withinKernel: Reserve = {
  share: 0.9,
  file: BodyBounds.ofFile + pieceSize,
  relay: BodyBounds.ofRelay + pieceSize
}

export const reserveOf = (plane: DataPlane["name"]): Reserve => plane === "zero-copy" ? withinKernel : throughProcess
