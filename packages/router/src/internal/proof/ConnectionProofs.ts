/**
 * Decides about each connection: whether its peer has proved that it knows the cluster key, and whether it may take part. The
 * side that dialled starts the exchange when the connection opens. Within five seconds it is decided.
 */
import type { Connection, Stream } from "@libp2p/interface"
import type { ClusterKeys } from "@spegel-ts/cluster-key/ClusterKeyFile"
import { Option } from "effect"
import * as PeerAddress from "../../PeerAddress.ts"
import type { Guard } from "../host/DhtEnvironment.ts"
import type { Admission, Outcome } from "./Admission.ts"
import { type Channel, initiate, type Proof, proofProtocol, respond, type Side } from "./Exchange.ts"
import { FailureLog } from "./FailureLog.ts"
import { PendingConnections } from "./PendingConnections.ts"
import { type FailureReason, ProofFailed } from "./ProofFailure.ts"
import { ProvedIds } from "./ProvedIds.ts"
import type { Statement } from "./Statement.ts"
import { StreamChannel } from "./StreamChannel.ts"

export interface ConnectionProofsOptions {
  /** With `prefer`, a peer that proves nothing takes part too, unless it did prove something before or does it wrongly. */
  readonly mode: "require" | "prefer"
  readonly ring: ClusterKeys["ring"]
  /** This node's peer id. */
  readonly self: string
  /** What this node states of itself now. */
  readonly statement: () => Statement
  /** A peer has proved that it knows the key. Called before anybody else learns of it. */
  readonly onProved: (connection: Connection, proof: Proof) => void
  readonly guard: Guard
}

/** From the connection's opening until it is decided, and for a later exchange, in milliseconds. */
const maxMillis = 5000
/** From the end of a connection's streams to its own. */
const closingMillis = 100
/** A refused connection is open for this long at most. */
const maxClosingMillis = 1000
/** Between two exchanges that a peer starts on one connection. */
const minPauseMillis = 1000
/** A proof of this node that failed so long ago does not explain why it is alone. */
const refusalMillis = 60_000

interface State {
  readonly connection: Connection
  readonly id: string
  readonly address: string
  readonly decided: PromiseWithResolvers<Outcome>
  readonly deadline: ReturnType<typeof setTimeout>
  outcome: Outcome | undefined
  /** Whether the peer speaks the proof's protocol; undefined if it has not said. */
  speaks: boolean | undefined
  /** When the peer last started an exchange, in milliseconds since this process began. */
  startedAt: number
}

export class ConnectionProofs implements Admission {
  readonly failures = new FailureLog()
  readonly #options: ConnectionProofsOptions
  readonly #states = new Map<Connection, State>()
  readonly #proved = new ProvedIds()
  readonly #pending = new PendingConnections<State>((state) => this.#late(state))
  #refusal: { readonly reason: FailureReason; readonly at: number } | undefined

  constructor(options: ConnectionProofsOptions) {
    this.#options = options
  }

  readonly now = (connection: Connection): Outcome | undefined => this.#stateOf(connection).outcome

  readonly settled = (connection: Connection): Promise<Outcome> => {
    const { decided, outcome } = this.#stateOf(connection)
    return outcome === undefined ? decided.promise : Promise.resolve(outcome)
  }

  /** Why a peer that this node dialled refused it, or was refused, within the last minute. */
  get refusal(): FailureReason | undefined {
    const refusal = this.#refusal
    return refusal !== undefined && performance.now() - refusal.at < refusalMillis ? refusal.reason : undefined
  }

  /** How many connections are proved with each key. Keys in use without one are at zero. */
  get connectionsByKey(): ReadonlyMap<string, number> {
    const counts = new Map(this.#options.ring().ids("router").map((id) => [id, 0]))
    for (const { outcome } of this.#states.values()) {
      if (outcome?._tag !== "Proved") continue
      counts.set(outcome.proof.keyId, (counts.get(outcome.proof.keyId) ?? 0) + 1)
    }
    return counts
  }

  /** How many connections are proved, with any key. */
  get proved(): number {
    return [...this.connectionsByKey.values()].reduce((sum, count) => sum + count, 0)
  }

  // --- events of the host -------------------------------------------------------------------------------------

  opened(connection: Connection): void {
    const state = this.#stateOf(connection)
    if (connection.direction === "outbound") void this.#start(state)
  }

  /** A peer has said which protocols it speaks. */
  identified(connection: Connection, protocols: ReadonlyArray<string>): void {
    const state = this.#stateOf(connection)
    if (state.speaks === true) return
    state.speaks = protocols.includes(proofProtocol)
    if (!state.speaks) this.#provesNothing(state)
  }

  /** Serves an exchange that a peer starts. */
  readonly serve = (stream: Stream, connection: Connection): void => {
    const state = this.#stateOf(connection)
    const now = performance.now()
    if (state.outcome?._tag === "Refused" || now - state.startedAt < minPauseMillis) {
      return stream.abort(new Error("the peer starts too many exchanges"))
    }
    state.startedAt = now
    void this.#exchange(state, stream, respond)
  }

  /** A member has said goodbye. It may come back without the key. */
  saidGoodbye(id: string): void {
    this.#proved.forget(id)
  }

  /** The open connections whose peers have proved a key that is no longer in use, or none, although they might have. */
  outdated(): ReadonlyArray<Connection> {
    return [...this.#states.values()].flatMap((state) => this.#isOutdated(state) ? state.connection : [])
  }

  /** Starts a new exchange on a connection. Unless it succeeds, the connection is closed. */
  renew(connection: Connection): void {
    const state = this.#states.get(connection)
    if (state !== undefined && this.#isOutdated(state)) void this.#start(state)
  }

  #isOutdated({ outcome, speaks }: State): boolean {
    return outcome?._tag === "Proved"
      ? this.#options.ring().find("router", outcome.proof.keyId) === undefined
      : outcome?._tag === "Unproved" && speaks === true
  }

  // --- exchanges ----------------------------------------------------------------------------------------------

  async #start(state: State): Promise<void> {
    let stream: Stream
    try {
      stream = await state.connection.newStream(proofProtocol, { signal: AbortSignal.timeout(maxMillis) })
    } catch (error) {
      if (state.outcome !== undefined) this.#failed(state, "timeout")
      else if (error instanceof Error && error.name === "UnsupportedProtocolError") this.#provesNothing(state)
      // After any other error the deadline decides.
      return
    }
    await this.#exchange(state, stream, initiate)
  }

  async #exchange(state: State, stream: Stream, run: (channel: Channel, side: Side) => Promise<Proof>): Promise<void> {
    const { ring, self, statement } = this.#options
    state.speaks = true
    const timer = setTimeout(() => stream.abort(new Error("the exchange took too long")), maxMillis)
    try {
      const side: Side = { ring: ring(), self, other: state.id, statement: statement() }
      const proof = await run(new StreamChannel(stream), side)
      // The key may have gone meanwhile.
      if (ring().find("router", proof.keyId) === undefined) this.#failed(state, "other_key")
      else this.#succeeded(state, proof)
    } catch (error) {
      const reason = error instanceof ProofFailed ? error.reason : "malformed"
      // A connection that is closed takes its streams with it, and is seen to be closed a moment later.
      if (reason === "timeout") await new Promise((resolve) => setTimeout(resolve, closingMillis))
      this.#failed(state, reason)
    } finally {
      clearTimeout(timer)
      void stream.close().catch(() => undefined)
    }
  }

  #succeeded(state: State, proof: Proof): void {
    if (state.outcome?._tag === "Refused" || state.connection.status !== "open") return
    this.#proved.add(state.id, proof.keyId, performance.now())
    this.#options.guard(() => this.#options.onProved(state.connection, proof))
    this.#decide(state, { _tag: "Proved", proof })
  }

  #failed(state: State, reason: FailureReason): void {
    // A connection that ended says nothing about its peer.
    if (state.outcome?._tag === "Refused" || state.connection.status !== "open") return
    // Both sides may renew a proof, and one exchange is enough.
    if (reason === "timeout" && state.outcome?._tag === "Proved" && !this.#isOutdated(state)) return
    const isNewcomer = state.outcome?._tag !== "Proved"
    if (this.#options.mode === "prefer" && reason === "other_key" && isNewcomer) {
      this.#count(state, reason)
      this.#provesNothing(state)
    } else this.#refuse(state, reason)
  }

  /** The peer cannot prove anything. */
  #provesNothing(state: State): void {
    if (state.outcome !== undefined) return
    const { mode, ring } = this.#options
    const isConnected = () =>
      [...this.#states.values()].some(({ id, outcome }) => id === state.id && outcome?._tag === "Proved")
    if (mode === "require") this.#refuse(state, "unproved")
    else if (this.#proved.has(state.id, ring(), performance.now(), isConnected())) this.#refuse(state, "downgrade")
    else this.#decide(state, { _tag: "Unproved" })
  }

  /** The peer has not proved anything in time. */
  #late(state: State): void {
    if (state.outcome !== undefined) return
    if (state.speaks === true) this.#refuse(state, "timeout")
    else this.#provesNothing(state)
  }

  #refuse(state: State, reason: FailureReason): void {
    this.#count(state, reason)
    this.#decide(state, { _tag: "Refused", reason })
    const { connection } = state
    // The peer is told why, but need not agree.
    const abort = () => connection.abort(new Error(reason))
    const timer = setTimeout(abort, maxClosingMillis)
    connection.addEventListener("close", () => clearTimeout(timer), { once: true })
    connection.close().catch(abort)
  }

  #count({ address, connection, id }: State, reason: FailureReason): void {
    this.failures.add({ reason, id, address })
    if (connection.direction === "outbound") this.#refusal = { reason, at: performance.now() }
  }

  // --- connections --------------------------------------------------------------------------------------------

  #decide(state: State, outcome: Outcome): void {
    clearTimeout(state.deadline)
    this.#pending.delete(state)
    state.outcome = outcome
    state.decided.resolve(outcome)
  }

  #stateOf(connection: Connection): State {
    const known = this.#states.get(connection)
    if (known !== undefined) return known
    const state: State = {
      connection,
      id: connection.remotePeer.toString(),
      address: Option.getOrElse(PeerAddress.ipOf(connection.remoteAddr), () => ""),
      decided: Promise.withResolvers<Outcome>(),
      deadline: setTimeout(() => this.#options.guard(() => this.#late(state)), maxMillis),
      outcome: undefined,
      speaks: undefined,
      startedAt: -Infinity
    }
    if (connection.status !== "open") {
      this.#decide(state, { _tag: "Refused", reason: "timeout" })
      return state
    }
    this.#states.set(connection, state)
    connection.addEventListener("close", () => this.#closed(state), { once: true })
    if (connection.direction === "inbound") this.#pending.add(state)
    return state
  }

  #closed(state: State): void {
    this.#states.delete(state.connection)
    if (state.outcome?._tag === "Proved") this.#proved.ended(state.id, performance.now())
    if (state.outcome === undefined) this.#decide(state, { _tag: "Refused", reason: "timeout" })
  }
}
