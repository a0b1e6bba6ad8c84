/** Which connections are taken and which are kept: bounds for peers that misbehave, and economy among those that do not. */
import type { Connection, ConnectionGater, Libp2p as Host, MultiaddrConnection } from "@libp2p/interface"
import { Option } from "effect"
import * as PeerAddress from "../../PeerAddress.ts"

/** Handshakes that one address may have under way: the rest of the places is for the others. */
const maxPendingOfAddress = 16
/** The first violation costs the stream, the next one the connection and the right to come back for a while. */
const violationsAllowed = 1
const banMillis = 10 * 60_000
const maxOffenders = 1000

interface Offender {
  violations: number
  bannedUntil: number
}

/** Refuses peers that broke the protocol more than once, and addresses that fill the waiting room. */
export class Gate {
  readonly #offenders = new Map<string, Offender>()
  readonly #pending = new Map<string, Set<MultiaddrConnection>>()

  /** What the host asks before it goes on with a connection. */
  readonly gater: ConnectionGater = {
    denyInboundConnection: (connection) => !this.#enter(connection),
    denyInboundEncryptedConnection: (peer, connection) => {
      this.#leave(connection)
      return this.#isBanned(peer.toString())
    },
    denyOutboundEncryptedConnection: (peer) => this.#isBanned(peer.toString())
  }

  /** Notes that a peer broke the protocol. */
  violated(connection: Connection): void {
    const id = connection.remotePeer.toString()
    const offender = this.#offenders.get(id) ?? { violations: 0, bannedUntil: 0 }
    offender.violations++
    this.#remember(id, offender)
    if (offender.violations <= violationsAllowed) return
    offender.violations = 0
    offender.bannedUntil = performance.now() + banMillis
    connection.abort(new Error("the peer broke the protocol repeatedly"))
  }

  /** The latest offender is remembered; where there are too many, one that is not banned is forgotten, the oldest first. */
  #remember(id: string, offender: Offender): void {
    this.#offenders.delete(id)
    if (this.#offenders.size >= maxOffenders) {
      const ids = [...this.#offenders.keys()]
      const forgotten = ids.find((other) => !this.#isBanned(other)) ?? ids[0]
      if (forgotten !== undefined) this.#offenders.delete(forgotten)
    }
    this.#offenders.set(id, offender)
  }

  #isBanned(id: string): boolean {
    return (this.#offenders.get(id)?.bannedUntil ?? 0) > performance.now()
  }

  #enter(connection: MultiaddrConnection): boolean {
    const address = Option.getOrElse(PeerAddress.ipOf(connection.remoteAddr), () => "")
    const pending = this.#pending.get(address) ?? new Set()
    if (pending.size >= maxPendingOfAddress) return false
    this.#pending.set(address, pending.add(connection))
    connection.addEventListener("close", () => this.#leave(connection), { once: true })
    return true
  }

  #leave(connection: MultiaddrConnection): void {
    const address = Option.getOrElse(PeerAddress.ipOf(connection.remoteAddr), () => "")
    const pending = this.#pending.get(address)
    pending?.delete(connection)
    if (pending?.size === 0) this.#pending.delete(address)
  }
}

/** Connections of one pair, oldest first, beyond the one that stays: the smaller id has opened it, so that both sides agree. */
const surplusOf = (self: string, connections: ReadonlyArray<Connection>): ReadonlyArray<Connection> => {
  const opener = ({ direction, remotePeer }: Connection) => direction === "outbound" ? self : remotePeer.toString()
  return connections.toSorted((a, b) => opener(a) < opener(b) ? -1 : opener(a) > opener(b) ? 1 : 0).slice(1)
}

export interface EconomyOptions {
  /** Connections that are held; beyond it only those of neighbours and those lately used stay. */
  readonly bound: number
  readonly isNeighbour: (id: string) => boolean
  /** Connections that were there the last time; those that are there now are added. */
  readonly known: WeakSet<Connection>
  /** When a peer was last asked something, in milliseconds since this process began; 0 where it never was. */
  readonly lastUsed: (id: string) => number
  /** Tells a peer that its connection is closed to spare it. */
  readonly rest: (id: string) => void
}

/**
 * Closes surplus connections of pairs. Gives the longest unused ones beyond the bound, whose peers have been told: they
 * are to be closed in a moment, so that the word goes first.
 */
export const economise = (
  host: Host,
  { bound, isNeighbour, known, lastUsed, rest }: EconomyOptions
): ReadonlyArray<Connection> => {
  const byPeer = Map.groupBy(
    host.getConnections().filter(({ status }) => status === "open"),
    ({ remotePeer }) => remotePeer.toString()
  )
  for (const connections of byPeer.values()) {
    // Two nodes that dial each other at the same time have two connections for a moment, and may be using both.
    if (connections.every((connection) => known.has(connection))) {
      close(surplusOf(host.peerId.toString(), connections))
    }
    for (const connection of connections) known.add(connection)
  }
  const spare = [...byPeer.keys()].filter((id) => !isNeighbour(id)).toSorted((a, b) => lastUsed(a) - lastUsed(b))
  const resting = spare.slice(0, Math.max(0, byPeer.size - bound))
  resting.forEach(rest)
  return resting.flatMap((id) => byPeer.get(id) ?? [])
}

/** Closes connections; one that does not close properly is gone as well. */
export const close = (connections: ReadonlyArray<Connection>): void => {
  for (const connection of connections) void connection.close().catch(() => undefined)
}
