/**
 * Notices two nodes with one identity, as cloned machines have: each takes the other for itself, and everybody else takes
 * the two for one. Only what a key has proved counts: where a peer was before its last restart others may tell for long.
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

/** Identities that are remembered as told of, and as looked at. */
const maxRemembered = 1000
/** Looking shows two nodes each time: without a pause it would be the cause of the next look. */
const lookAgainMillis = 10 * 60_000
/** Findings that wait to be looked at; more are as good as these. */
const maxFindings = 16

type Finding =
  | { readonly _tag: "Own"; readonly address: Multiaddr }
  | { readonly _tag: "Moved"; readonly id: string; readonly from: Multiaddr; readonly to: Multiaddr }

export interface IdentityConflicts {
  /** Noise, with a look at who has proved to be this node before the host hangs up on it. */
  readonly encrypter: (components: Parameters<ReturnType<typeof noise>>[0]) => ConnectionEncrypter
  /** A member that was known at the first addresses has proved who it is, and says that it is at the second ones. */
  readonly introduced: (id: string, before: ReadonlyArray<Multiaddr>, now: ReadonlyArray<Multiaddr>) => void
}

const whatToDo =
  "one was cloned with its data directory; remove private.key in the --data-dir of one of them, and restart that one"

export const make = Effect.fnUntraced(function*(options: {
  readonly self: string
  /** Connects anew to a member at this address; fails where it is not there. */
  readonly dialAgain: (id: string, address: Multiaddr) => Effect.Effect<void, unknown>
}): Effect.fn.Return<IdentityConflicts, never, Scope.Scope> {
  const findings = yield* Queue.dropping<Finding>(maxFindings)
  const told = new Set<string>()
  const lookedAt = new Map<string, number>()
  // Says which process is at the other end: a node may reach itself, by a service in front of it. Noise has one field that
  // others ignore where it is not meant for them.
  const process = randomBytes(16)

  const once = (id: string, say: Effect.Effect<void>) =>
    Effect.suspend(() => {
      if (told.has(id)) return Effect.void
      if (told.size >= maxRemembered) told.clear()
      told.add(id)
      return say
    })

  const report = Effect.fnUntraced(function*(finding: Finding) {
    if (finding._tag === "Own") {
      yield* identityConflict("own")
      const address = finding.address.toString()
      return yield* once(
        options.self,
        Effect.logWarning(`another node has this node's identity, and the two do not see each other: ${whatToDo}`).pipe(
          Effect.annotateLogs({ id: options.self, address })
        )
      )
    }
    const { from, id, to } = finding
    const now = yield* MonotonicTime.millis
    if (now - (lookedAt.get(id) ?? -Infinity) < lookAgainMillis) return
    if (lookedAt.size >= maxRemembered) lookedAt.clear()
    lookedAt.set(id, now)
    const stillThere = yield* options.dialAgain(id, from).pipe(Effect.as(true), Effect.orElseSucceed(() => false))
    // It has moved, as a pod does that is started again.
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
    // The host passes the connection itself, though only as what can be written to.
    const { remoteAddr } = connection as MessageStream & { readonly remoteAddr: Multiaddr }
    Queue.offerUnsafe(findings, { _tag: "Own", address: PeerAddress.withoutId(remoteAddr) })
  }

  yield* Background.keepRunning("identity conflicts", Effect.forever(Effect.flatMap(Queue.take(findings), report)))
  return {
    encrypter: (components) => {
      const { protocol, secureInbound, secureOutbound } = bound(
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
      // A node names all its addresses each time. What several hosts have in common, such as a bridge's, is no sign.
      if (from === undefined || to === undefined || isAmong(from, now) || isAmong(to, before)) return
      Queue.offerUnsafe(findings, { _tag: "Moved", id, from, to })
    }
  }
})

const bound = (encrypter: ReturnType<ReturnType<typeof noise>>) => ({
  protocol: encrypter.protocol,
  secureInbound: encrypter.secureInbound.bind(encrypter),
  secureOutbound: encrypter.secureOutbound.bind(encrypter)
})
