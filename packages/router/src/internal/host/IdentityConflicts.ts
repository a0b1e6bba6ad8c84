/**
 * Detects two nodes with the same identity, as cloned machines have: each takes the other for itself, and all others take
 * the two for one. Only an address where a peer has proved its key counts, since others may name an old one for a long time.
 */
import { noise } from "@chainsafe/libp2p-noise"
import type { ConnectionEncrypter, MessageStream } from "@libp2p/interface"
import type { Multiaddr } from "@multiformats/multiaddr"
import * as Background from "@spegel-ts/background/Background"
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { Effect, Queue, type Scope } from "effect"
import { randomBytes } from "node:crypto"
import * as PeerAddress from "../../PeerAddress.ts"
import { identityConflict } from "./RouterMetrics.ts"

/** Identities that are remembered as reported, and as checked. */
const maxRemembered = 1000
/** A check connects to both nodes, which would cause the next check at once. */
const recheckMillis = 10 * 60_000
/** Suspicions that wait for a check. Further ones are dropped: they would show the same. */
const maxSuspicions = 16

type Suspicion =
  | { readonly _tag: "Own"; readonly address: Multiaddr }
  | { readonly _tag: "Moved"; readonly id: string; readonly from: Multiaddr; readonly to: Multiaddr }

export interface IdentityConflicts {
  /** Noise, which notices a peer that has proved this node's identity before the host closes the connection. */
  readonly encrypter: (components: Parameters<ReturnType<typeof noise>>[0]) => ConnectionEncrypter
  /** A member known at the first addresses has proved its identity, and names the second ones now. */
  readonly introduced: (id: string, before: ReadonlyArray<Multiaddr>, now: ReadonlyArray<Multiaddr>) => void
}

const whatToDo =
  "one was cloned with its data directory; remove private.key from the data directory of one, and restart that one"

export const make = Effect.fnUntraced(function*(options: {
  readonly self: string
  /** Opens a new connection to a member at this address; fails if it is not there. */
  readonly dialAgain: (id: string, address: Multiaddr) => Effect.Effect<void, unknown>
}): Effect.fn.Return<IdentityConflicts, never, Scope.Scope> {
  const suspicions = yield* Queue.dropping<Suspicion>(maxSuspicions)
  const reported = new Set<string>()
  const checkedAt = new Map<string, number>()
  // Tells a node that it has reached itself, through a load balancer for example. This is the one field of noise's handshake
  // that peers ignore unless they use it.
  const process = randomBytes(16)

  const once = (id: string, say: Effect.Effect<void>) =>
    Effect.suspend(() => {
      if (reported.has(id)) return Effect.void
      if (reported.size >= maxRemembered) reported.clear()
      reported.add(id)
      return say
    })

  const report = Effect.fnUntraced(function*(suspicion: Suspicion) {
    if (suspicion._tag === "Own") {
      yield* identityConflict("own")
      const address = suspicion.address.toString()
      return yield* once(
        options.self,
        Effect.logWarning(`another node has this node's identity, and the two do not see each other: ${whatToDo}`).pipe(
          Effect.annotateLogs({ id: options.self, address })
        )
      )
    }
    const { from, id, to } = suspicion
    const now = yield* MonotonicTime.millis
    if (now - (checkedAt.get(id) ?? -Infinity) < recheckMillis) return
    if (checkedAt.size >= maxRemembered) checkedAt.clear()
    checkedAt.set(id, now)
    const stillThere = yield* options.dialAgain(id, from).pipe(Effect.as(true), Effect.orElseSucceed(() => false))
    // It has moved, as a restarted pod does.
    if (!stillThere) return
    yield* identityConflict("member")
    yield* once(
      id,
      Effect.logWarning(`two nodes have one identity, and are taken for one: ${whatToDo}`).pipe(
        Effect.annotateLogs({ id, addresses: [from, to].map(String).join(", ") })
      )
    )
  })

  const proved = (id: string, other: Uint8Array | undefined, connection: MessageStream) => {
    if (id !== options.self || (other !== undefined && process.equals(other))) return
    // The host passes the connection itself, with a narrower type.
    const { remoteAddr } = connection as MessageStream & { readonly remoteAddr: Multiaddr }
    Queue.offerUnsafe(suspicions, { _tag: "Own", address: PeerAddress.withoutId(remoteAddr) })
  }

  yield* Background.keepRunning("identity conflicts", Effect.forever(Effect.flatMap(Queue.take(suspicions), report)))
  return {
    encrypter: (components) => {
      const { protocol, secureInbound, secureOutbound } = bind(
        noise({ extensions: { webtransportCerthashes: [process] } })(components)
      )
      const witnessed = (secure: typeof secureInbound): typeof secureInbound => async (connection, options) => {
        const secured = await secure(connection, options)
        proved(secured.remotePeer.toString(), secured.remoteExtensions?.webtransportCerthashes[0], connection)
        return secured
      }
      return { protocol, secureInbound: witnessed(secureInbound), secureOutbound: witnessed(secureOutbound) }
    },
    introduced: (id, before, now) => {
      const [from] = before
      const [to] = now
      const isAmong = (address: Multiaddr, others: ReadonlyArray<Multiaddr>) =>
        others.some((other) => other.toString() === address.toString())
      // A node names all its addresses each time. One that many hosts have, such as a bridge's, proves nothing.
      if (from === undefined || to === undefined || isAmong(from, now) || isAmong(to, before)) return
      Queue.offerUnsafe(suspicions, { _tag: "Moved", id, from, to })
    }
  }
})

const bind = (encrypter: ReturnType<ReturnType<typeof noise>>) => ({
  protocol: encrypter.protocol,
  secureInbound: encrypter.secureInbound.bind(encrypter),
  secureOutbound: encrypter.secureOutbound.bind(encrypter)
})
