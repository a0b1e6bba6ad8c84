/**
 * The proofs of membership on a host: serves their protocol, proves connections anew when the cluster keys change, and logs
 * the peers that fail.
 */
import type { Connection, Libp2p as Host } from "@libp2p/interface"
import * as Background from "@spegel-ts/background/Background"
import type { PeerAuthState } from "@spegel-ts/cluster-key/PeerAuth"
import { Duration, Effect, Random, Stream } from "effect"
import type { Dht } from "../dht/Dht.ts"
import { type Admission, everybody } from "../proof/Admission.ts"
import { ConnectionProofs, type ConnectionProofsOptions } from "../proof/ConnectionProofs.ts"
import { proofProtocol } from "../proof/Exchange.ts"
import { adviceOn, meaningOf } from "../proof/ProofFailure.ts"
import * as ProofNews from "../proof/ProofNews.ts"
import type { Statement } from "../proof/Statement.ts"
import type { Guard } from "./DhtEnvironment.ts"
import * as RouterMetrics from "./RouterMetrics.ts"

export interface MembershipProofs {
  readonly admission: Admission
  /** The proofs of connections; undefined if nobody proves anything. */
  readonly connections: ConnectionProofs | undefined
  /** Why the last peers that this node dialled did not become members; undefined if their proofs do not explain it. */
  readonly refusal: () => string | undefined
}

export interface MembershipProofsOptions {
  readonly auth: PeerAuthState
  readonly host: Host
  readonly statement: () => Statement
  readonly onProved: ConnectionProofsOptions["onProved"]
  readonly guard: Guard
}

/** Streams of one connection, of which one is in use. */
const maxStreams = 2
/**
 * When the keys have changed, members prove the new ones within this time, or more slowly in a large network: this much for
 * each member. All nodes may have learnt of the change at the same moment.
 */
const renewalSpread = Duration.seconds(5)
const renewalMillis = 20

const open: MembershipProofs = { admission: everybody, connections: undefined, refusal: () => undefined }

/** Begins before the host listens, and ends with the scope. */
export const make = Effect.fnUntraced(function*(options: MembershipProofsOptions) {
  const { auth, guard, host, onProved, statement } = options
  if (auth.mode === "off") return open
  const connections = new ConnectionProofs({
    mode: auth.mode,
    ring: auth.keys.ring,
    self: host.peerId.toString(),
    statement,
    onProved,
    guard
  })
  const onOpen = ({ detail }: CustomEvent<Connection>) => guard(() => connections.opened(detail))
  yield* Effect.acquireRelease(
    Effect.sync(() => host.addEventListener("connection:open", onOpen)),
    () => Effect.sync(() => host.removeEventListener("connection:open", onOpen))
  )
  const limits = { maxInboundStreams: maxStreams, maxOutboundStreams: maxStreams }
  yield* Effect.promise(() => host.handle(proofProtocol, connections.serve, limits))
  yield* RouterMetrics.initialiseProofs
  yield* Background.keepRunning("proof news", ProofNews.run(connections.failures, () => connections.proved))
  return {
    admission: connections,
    connections,
    refusal: () => {
      const { refusal } = connections
      return refusal === undefined ? undefined : `peers ${meaningOf(refusal)}${adviceOn([refusal])}`
    }
  }
})

/** Follows the changes of the keys while the scope is open. */
export const followKeys = Effect.fnUntraced(function*(
  auth: PeerAuthState,
  { connections }: MembershipProofs,
  dht: Dht
) {
  if (auth.mode === "off" || connections === undefined) return
  const renewal = Effect.suspend(() => {
    const outdated = connections.outdated()
    const connected = new Set(outdated.map(({ remotePeer }) => remotePeer.toString()))
    const unconnected = dht.provedWithOtherKeys(auth.keys.ring().ids("router")).filter((id) => !connected.has(id))
    return spread([
      ...outdated.map((connection) => () => connections.renew(connection)),
      ...unconnected.map((id) => () => dht.check(id))
    ])
  })
  // A source that never changes ends this stream.
  yield* Background.untilDone("cluster key changes", Stream.runForEach(auth.keys.changes, () => renewal))
})

/** Does all of the work in a random order, within a time that grows with its amount. */
const spread = (work: ReadonlyArray<() => void>): Effect.Effect<void> =>
  Effect.forEach(work, (run) => {
    const millis = Math.max(Duration.toMillis(renewalSpread), renewalMillis * work.length)
    return Effect.flatMap(Random.next, (share) => Effect.delay(Effect.sync(run), share * millis))
  }, { concurrency: "unbounded", discard: true })
