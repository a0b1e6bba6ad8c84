/**
 * Moves bodies within the kernel, on the mover's thread. Connections are lent to the mover: Node leaves them alone until they
 * are given back. A body that the mover cannot move goes the portable way, from the byte reached.
 */
import { Effect } from "effect"
import type { Socket } from "node:net"
import { ClientGone, type Moved, SourceEnded, TransferAborted, type TransferError, TransferFailed } from "../Body.ts"
import { descriptorOf, type PeerSocket, type Reader } from "../PeerSocket.ts"
import type { Mover, Submission } from "./mover/Mover.ts"
import type { Ending } from "./mover/Protocol.ts"
import * as Portable from "./Portable.ts"

/** Lending connections and taking them back costs more than copying this many bytes. */
const leastBytes = 128 * 1024

export const move = (mover: Mover, rest: Portable.Rest): Effect.Effect<Moved, TransferError> => {
  const portable = Effect.suspend(() => Portable.move(rest))
  const left = rest.length - rest.moved
  if (left < leastBytes || !isLendable(rest)) return portable
  const before = rest.progress.moved
  return Effect.flatMap(
    lent(mover, rest),
    (ending) => ending._tag === "Refused" ? portable : outcomeOf(ending, left - (rest.progress.moved - before))
  )
}

/** True if both ends are plain connections, and Node has nothing left to do with them. */
const isLendable = ({ client: { socket }, source }: Portable.Rest): boolean => {
  if (descriptorOf(socket) === undefined || socket.writableLength > 0) return false
  if (source._tag !== "Peer") return true
  source.peer.pause()
  return descriptorOf(source.peer.socket) !== undefined && source.peer.idle
}

/** Lends the connections to the mover. When it is interrupted it ends once the mover has given them back. */
const lent = (mover: Mover, rest: Portable.Rest): Effect.Effect<Ending> =>
  Effect.callback((resume) => {
    const over = Promise.withResolvers<void>()
    let peerEnded = false
    let abort: (() => void) | undefined
    const giveBackClient = lendClient(rest.client.socket)
    const giveBackPeer = rest.source._tag !== "Peer" ? () => {} : lendPeer(rest.source.peer, () => {
      peerEnded = true
      abort?.()
    })
    const giveBack = () => {
      giveBackClient()
      giveBackPeer()
    }
    abort = mover.submit(submissionOf(rest), (ending) => {
      giveBack()
      over.resolve()
      const closedHere = peerEnded && ending._tag === "Aborted"
      resume(
        Effect.succeed(closedHere ? { _tag: "SourceEnded", reason: "the peer's connection was closed here" } : ending)
      )
    })
    if (abort === undefined) {
      giveBack()
      return resume(Effect.succeed({ _tag: "Refused" }))
    }
    return Effect.suspend(() => {
      abort()
      return Effect.promise(() => over.promise)
    })
  })

const submissionOf = ({ client, length, moved, progress, source }: Portable.Rest): Submission => {
  const common = { to: client.socket, length: length - moved, progress }
  switch (source._tag) {
    case "File":
      return { ...common, kind: "file", from: source.handle.fd, offset: source.offset + moved }
    case "GrowingFile":
      return { ...common, kind: "growing file", from: source.handle.fd, offset: source.offset + moved }
    case "Peer":
      return { ...common, kind: "relay", from: source.peer.socket, offset: 0 }
  }
}

/** Switches the socket's timeout off meanwhile: Node does not see what the mover writes, and would think it idle. */
const lendClient = (socket: Socket): () => void => {
  const { timeout } = socket
  if (timeout === undefined || timeout === 0) return () => {}
  socket.setTimeout(0)
  return () => {
    if (!socket.destroyed) socket.setTimeout(timeout)
  }
}

/** Nobody reads from the peer meanwhile, but its owner may close it. The next read goes to the reader before. */
const lendPeer = (peer: PeerSocket, onEnd: () => void): () => void => {
  const before: Reader = peer.use({ space: () => before.space(), onBytes: () => false, onEnd })
  return () => void peer.use(before)
}

const outcomeOf = (
  ending: Exclude<Ending, { readonly _tag: "Refused" }>,
  missing: number
): Effect.Effect<Moved, TransferError> => {
  switch (ending._tag) {
    case "Complete":
      return Effect.succeed({ source: ending.source })
    case "ClientGone":
      return Effect.fail(new ClientGone())
    case "SourceEnded":
      return Effect.fail(new SourceEnded({ reason: ending.reason, missing }))
    case "Aborted":
      return Effect.fail(new TransferAborted())
    case "Failed":
      return Effect.fail(new TransferFailed({ reason: ending.reason }))
  }
}
