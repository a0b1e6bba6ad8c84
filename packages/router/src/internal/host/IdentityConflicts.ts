/**
 * Detects two nodes with the same identity, as cloned machines have: each takes the other for itself, and all others take
 * the two for one. Only an address where a peer has proved its key counts, since others may name an old one for a long time.
 */
import { noise } from "@chainsafe/libp2p-noise"
import type { ConnectionEncrypter, MessageStream } from "@libp2p/interface"
import type { Multiaddr } from "@multiformats/multiaddr"
import * as Background from "@spegel-ts/background/Background"
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
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
  /** A peer has proved this node's identity. */
  | { readonly _tag: "Own"; readonly address: Multiaddr }
  /** A member has proved its identity at another address than before. */
  | { readonly _tag: "Moved"; readonly id: string; readonly from: Multiaddr; readonly to: Multiaddr }

type Encrypter = (components: Parameters<ReturnType<typeof noise>>[0]) => ConnectionEncrypter

const whatToDo =
  "one was cloned with its data directory; remove private.key from the data directory of one, and restart that one"

export interface IdentityConflictsOptions {
  /** This node's id. */
  readonly self: string
  /** Opens a new connection to a member at this address; fails if it is not there. */
  readonly dialAgain: (id: string, address: Multiaddr) => Effect.Effect<void, unknown>
}

export class IdentityConflicts {
  readonly #options: IdentityConflictsOptions
  readonly #suspicions: Queue.Queue<Suspicion>
  readonly #reported = new BoundedMap<string, true>(maxRemembered)
  readonly #checkedAt = new BoundedMap<string, number>(maxRemembered)
  /**
   * Tells a node that it has reached itself, through a load balancer for example. It travels in the one field of noise's
   * handshake that peers ignore unless they use it.
   */
  readonly #process = randomBytes(16)

  /** A detector that checks suspicions while the scope is open. */
  static readonly make = Effect.fnUntraced(function*(
    options: IdentityConflictsOptions
  ): Effect.fn.Return<IdentityConflicts, never, Scope.Scope> {
    const suspicions = yield* Queue.dropping<Suspicion>(maxSuspicions)
    const conflicts = new IdentityConflicts(options, suspicions)
    yield* Background.keepRunning(
      "identity conflicts",
      Effect.forever(Effect.flatMap(Queue.take(suspicions), (suspicion) => conflicts.#check(suspicion)))
    )
    return conflicts
  })

  private constructor(options: IdentityConflictsOptions, suspicions: Queue.Queue<Suspicion>) {
    this.#options = options
    this.#suspicions = suspicions
  }

  /** Noise, which notices a peer that has proved this node's identity before the host closes the connection. */
  readonly encrypter: Encrypter = (components) => {
    const encrypter = noise({ extensions: { webtransportCerthashes: [this.#process] } })(components)
    const watched = (method: "secureInbound" | "secureOutbound") => {
      const secure = encrypter[method].bind(encrypter)
      const secureAndCheck: typeof secure = async (connection, options) => {
        const secured = await secure(connection, options)
        this.#proved(secured.remotePeer.toString(), secured.remoteExtensions?.webtransportCerthashes[0], connection)
        return secured
      }
      return secureAndCheck
    }
    return {
      protocol: encrypter.protocol,
      secureInbound: watched("secureInbound"),
      secureOutbound: watched("secureOutbound")
    }
  }

  /** A member known at the addresses `before` has proved its identity, and names the addresses `now`. */
  introduced(id: string, before: ReadonlyArray<Multiaddr>, now: ReadonlyArray<Multiaddr>): void {
    const [from] = before
    const [to] = now
    const isAmong = (address: Multiaddr, others: ReadonlyArray<Multiaddr>) =>
      others.some((other) => other.toString() === address.toString())
    // A node names all its addresses each time. One that many hosts have, such as a bridge's, proves nothing.
    if (from === undefined || to === undefined || isAmong(from, now) || isAmong(to, before)) return
    Queue.offerUnsafe(this.#suspicions, { _tag: "Moved", id, from, to })
  }

  #proved(id: string, process: Uint8Array | undefined, connection: MessageStream): void {
    if (id !== this.#options.self || (process !== undefined && this.#process.equals(process))) return
    // The host passes the connection itself, with a narrower type.
    const { remoteAddr } = connection as MessageStream & { readonly remoteAddr: Multiaddr }
    Queue.offerUnsafe(this.#suspicions, { _tag: "Own", address: PeerAddress.withoutId(remoteAddr) })
  }

  #check(suspicion: Suspicion): Effect.Effect<void> {
    return suspicion._tag === "Own"
      ? this.#reportOwn(suspicion.address)
      : this.#checkMoved(suspicion.id, suspicion.from, suspicion.to)
  }

  #reportOwn(address: Multiaddr): Effect.Effect<void> {
    const id = this.#options.self
    const warning = `another node has this node's identity, and the two do not see each other: ${whatToDo}`
    return Effect.andThen(
      identityConflict("own"),
      this.#warnOnce(id, warning, { id, address: address.toString() })
    )
  }

  readonly #checkMoved = Effect.fnUntraced({ self: this }, function*(
    this: IdentityConflicts,
    id: string,
    from: Multiaddr,
    to: Multiaddr
  ) {
    const now = yield* MonotonicTime.millis
    if (now - (this.#checkedAt.get(id) ?? -Infinity) < recheckMillis) return
    this.#checkedAt.set(id, now)
    const isStillThere = yield* Effect.isSuccess(this.#options.dialAgain(id, from))
    // If not, it has moved, as a restarted pod does.
    if (!isStillThere) return
    yield* identityConflict("member")
    const warning = `two nodes have one identity, and are taken for one: ${whatToDo}`
    yield* this.#warnOnce(id, warning, { id, addresses: [from, to].map(String).join(", ") })
  })

  #warnOnce(id: string, warning: string, annotations: Record<string, string>): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#reported.has(id)) return Effect.void
      this.#reported.set(id, true)
      return Effect.annotateLogs(Effect.logWarning(warning), annotations)
    })
  }
}
