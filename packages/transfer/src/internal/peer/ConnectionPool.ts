/**
 * Connections to peers: those in use, and those kept idle for the next request. How many are idle, and for how long, is
 * bounded: a peer closes an idle connection after 65 s, and a request must not run into that.
 */
import { isIPv6 } from "node:net"
import { PeerConnection } from "./PeerConnection.ts"

export interface PoolLimits {
  readonly maxIdlePerPeer: number
  readonly maxIdle: number
  /** How long a connection may be idle before it is closed, in milliseconds. */
  readonly idleMillis: number
  /** How long one address of a peer may take to connect before the next one is also tried. In milliseconds. */
  readonly nextAddressMillis: number
}

export const defaultLimits: PoolLimits = {
  maxIdlePerPeer: 8,
  maxIdle: 128,
  idleMillis: 30_000,
  nextAddressMillis: 50
}

/** A peer's registry. */
export interface Target {
  /** IP literals, at least one. */
  readonly addresses: ReadonlyArray<string>
  readonly port: number
}

const keyOf = ({ addresses, port }: Target) => `${port} ${addresses.join(" ")}`

/** The order in which to try addresses (RFC 8305): the families in turn, IPv6 first. */
export const inOrder = (addresses: ReadonlyArray<string>): ReadonlyArray<string> => {
  const six = addresses.filter((address) => isIPv6(address))
  const four = addresses.filter((address) => !isIPv6(address))
  return Array.from({ length: Math.max(six.length, four.length) }, (_, index) => [six[index], four[index]])
    .flat().filter((address) => address !== undefined)
}

export class ConnectionPool {
  readonly #limits: PoolLimits
  readonly #all = new Set<PeerConnection>()
  /** By peer. The one used last is used first. */
  readonly #idle = new Map<string, Array<PeerConnection>>()
  #idleCount = 0
  #closed = false

  constructor(limits: PoolLimits) {
    this.#limits = limits
  }

  /** The number of open connections, and of the idle ones among them. */
  get size(): { readonly open: number; readonly idle: number } {
    return { open: this.#all.size, idle: this.#idleCount }
  }

  /** An idle connection, if there is one. */
  take(target: Target): PeerConnection | undefined {
    const key = keyOf(target)
    const idle = this.#idle.get(key)
    const connection = idle?.pop()
    if (idle?.length === 0) this.#idle.delete(key)
    if (connection !== undefined) this.#idleCount--
    return connection
  }

  /** Keeps a connection whose exchange is over. */
  give(target: Target, connection: PeerConnection): void {
    if (this.#closed || connection.gone) return connection.destroy()
    const key = keyOf(target)
    const idle = this.#idle.get(key) ?? []
    connection.rest(this.#limits.idleMillis)
    if (idle.length >= this.#limits.maxIdlePerPeer || this.#idleCount >= this.#limits.maxIdle) {
      return connection.destroy()
    }
    idle.push(connection)
    this.#idle.set(key, idle)
    this.#idleCount++
  }

  /**
   * Opens a connection to the address that accepts first: the next one is tried when one fails, or takes long. Returns a
   * function that stops it.
   */
  dial(
    target: Target,
    onConnected: (connection: PeerConnection) => void,
    onFailed: (reason: string) => void
  ): () => void {
    const left = [...inOrder(target.addresses)]
    const dialling = new Set<PeerConnection>()
    let timer: NodeJS.Timeout | undefined
    let over = this.#closed
    const stop = () => {
      over = true
      clearTimeout(timer)
      for (const connection of dialling) connection.destroy()
    }
    const next = () => {
      clearTimeout(timer)
      const address = left.shift()
      if (address === undefined || over) return
      let connected = false
      const connection: PeerConnection = new PeerConnection(address, target.port, () => {
        connected = true
        dialling.delete(connection)
        stop()
        onConnected(connection)
      }, (reason) => {
        this.#all.delete(connection)
        dialling.delete(connection)
        if (connected) return this.#forget(target, connection)
        if (over) return
        if (left.length > 0) next()
        else if (dialling.size === 0) {
          over = true
          onFailed(reason ?? "closed the connection")
        }
      })
      this.#all.add(connection)
      dialling.add(connection)
      if (left.length > 0) timer = setTimeout(next, this.#limits.nextAddressMillis)
    }
    if (over) onFailed("the transport is closed")
    else next()
    return stop
  }

  close(): void {
    this.#closed = true
    for (const connection of this.#all) connection.destroy()
  }

  #forget(target: Target, connection: PeerConnection): void {
    const key = keyOf(target)
    const idle = this.#idle.get(key)
    const index = idle?.indexOf(connection) ?? -1
    if (idle === undefined || index === -1) return
    idle.splice(index, 1)
    this.#idleCount--
    if (idle.length === 0) this.#idle.delete(key)
  }
}
