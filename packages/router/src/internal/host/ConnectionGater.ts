/** Decides which connections the host accepts: it bounds the handshakes of one address and bans peers that break the protocol. */
import type { Connection, ConnectionGater as Libp2pGater, MultiaddrConnection, PeerId } from "@libp2p/interface"
import { Option } from "effect"
import * as PeerAddress from "../../PeerAddress.ts"

/** Handshakes in progress that one address may have. The host's other places stay free for other addresses. */
const maxPendingOfAddress = 16
/** The first violation costs the stream. The next one costs the connection and bans the peer. */
const violationsAllowed = 1
const banMillis = 10 * 60_000
const maxOffenders = 1000

interface Offender {
  violations: number
  bannedUntil: number
}

/**
 * Lets connections in or denies them, when libp2p asks. libp2p calls the methods without their object, so they are properties.
 */
export class ConnectionGater implements Libp2pGater {
  readonly #offenders = new Map<string, Offender>()
  readonly #pending = new Map<string, Set<MultiaddrConnection>>()

  readonly denyInboundConnection = (connection: MultiaddrConnection): boolean => !this.#enter(connection)

  readonly denyInboundEncryptedConnection = (peer: PeerId, connection: MultiaddrConnection): boolean => {
    this.#leave(connection)
    return this.#isBanned(peer.toString())
  }

  readonly denyOutboundEncryptedConnection = (peer: PeerId): boolean => this.#isBanned(peer.toString())

  /** Records that a peer broke the protocol. A repeated offender loses its connection and is banned. */
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

  /** Remembers the latest offenders. When there are too many, the oldest one that is not banned is forgotten. */
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
    const address = addressOf(connection)
    const pending = this.#pending.get(address) ?? new Set()
    if (pending.size >= maxPendingOfAddress) return false
    this.#pending.set(address, pending.add(connection))
    connection.addEventListener("close", () => this.#leave(connection), { once: true })
    return true
  }

  #leave(connection: MultiaddrConnection): void {
    const address = addressOf(connection)
    const pending = this.#pending.get(address)
    pending?.delete(connection)
    if (pending?.size === 0) this.#pending.delete(address)
  }
}

const addressOf = ({ remoteAddr }: MultiaddrConnection): string =>
  Option.getOrElse(PeerAddress.ipOf(remoteAddr), () => "")
