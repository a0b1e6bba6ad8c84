/**
 * The first step of a pull: looks up the peers that have the content. Peers are asked as the lookup names them, not when it has
 * ended.
 */
import { Effect, Queue, Stream } from "effect"
import { PeerEvent, type PullPeers } from "./PullPeers.ts"

/**
 * Starts a lookup beside the pull. It asks for more peers than may be asked: some may be known to fail, and of the others the
 * less busy are chosen.
 */
export const start = (peers: PullPeers): Effect.Effect<unknown> =>
  Effect.suspend(() => {
    peers.looking = true
    return peers.options.lookup(peers.seen + 2 * peers.options.retries).pipe(
      Stream.runForEach((peer) => Queue.offer(peers.events, PeerEvent.Found({ peer }))),
      Effect.catch((error) => Effect.logDebug(error.message)),
      Effect.ensuring(Queue.offer(peers.events, PeerEvent.LookupEnded())),
      Effect.forkIn(peers.scope)
    )
  })
