/**
 * Accounts for the memory of bodies: by connection, by client address, and in all.
 *
 * Bytes count as queued in the kernel when they are handed to it, up to what a socket can hold. A measurement by the kernel
 * (`SocketQueues`) then subtracts what clients have taken since.
 */
import { pieceSize } from "@spegel-ts/transfer/ClientSink"
import type { Progress } from "@spegel-ts/transfer/Progress"
import type { Socket } from "node:net"
import * as ClientAddress from "../listen/ClientAddress.ts"
import * as BodyConnection from "./BodyConnection.ts"
import type { SocketQueue } from "./SocketQueues.ts"

type Connection = BodyConnection.BodyConnection

export interface AccountOptions {
  /** The most that the kernel holds unsent of one connection, in bytes. */
  readonly maxUnsent: number
  /** Called when a connection's use has changed. */
  readonly onCharge: (connection: Connection) => void
  /** Called when a connection was closed and its use ended. */
  readonly onLeave: (connection: Connection) => void
}

/**
 * Peers may fill the bound with bytes that this node has not read yet, and sending makes room then. By one piece a measurement, a
 * fast client would get a few MiB per second.
 */
const maxAllowance = 8 * pieceSize

const keyOf = (localPort: number | undefined, address: string, port: number | undefined) =>
  `${localPort} ${address} ${port}`

export class MemoryAccounts {
  readonly #options: AccountOptions
  readonly #connections = new Map<Socket, Connection>()
  readonly #byKey = new Map<string, Connection>()
  readonly #clients = new Map<string, BodyConnection.Client>()
  /** Local ports of all connections so far: those of a few listeners. */
  readonly #ports = new Set<number>()
  /** Bytes that the kernel still holds of connections that are closed here, by client address. */
  #gone = new Map<string, number>()
  #goneOfAll = 0
  readonly #all: BodyConnection.Use = { moving: 0, beyond: 0 }

  constructor(options: AccountOptions) {
    this.#options = options
  }

  /** Reserved for bodies. In bytes, as all sums here. */
  get moving(): number {
    return this.#all.moving
  }

  /** Held by the kernel beyond the reservations, also of connections that are closed here. */
  get beyond(): number {
    return this.#all.beyond + this.#goneOfAll
  }

  /** `beyond`, of one client address. */
  beyondOf({ client }: Connection): number {
    return client.beyond + (this.#gone.get(client.address) ?? 0)
  }

  /** The connections that bodies come on from peers, by this node's port of them. */
  get relays(): ReadonlyMap<number | undefined, Connection> {
    return new Map(
      [...this.#connections.values()].map((connection) => [connection.relaying?.receivingPort, connection])
    )
  }

  isOfListener(localPort: number): boolean {
    return this.#ports.has(localPort)
  }

  /** The account of a connection, with what was sent on it until now. */
  of(socket: Socket): Connection {
    const connection = this.#connections.get(socket) ?? this.#enter(socket)
    const { moved = 0 } = connection.progress ?? {}
    if (moved !== connection.moved) connection.movedAt = performance.now()
    connection.moved = moved
    const sent = socket.bytesWritten - connection.written
    if (sent > 0) {
      connection.written += sent
      connection.queued = Math.min(connection.queued + sent, this.#options.maxUnsent)
      connection.movedAt = performance.now()
      this.#charge(connection)
    }
    return connection
  }

  /** The growth of `beyond` if this many bytes more were sent. */
  growth(connection: Connection, bytes: number): number {
    return this.#beyondOnceSent(connection, bytes) - connection.use.beyond
  }

  /** Reserves bytes for a body that begins. */
  reserve(connection: Connection, bytes: number): void {
    connection.bodies++
    connection.reserved += bytes
    this.#charge(connection)
  }

  /** Ends a reservation. */
  release(socket: Socket, bytes: number): void {
    const connection = this.#connections.get(socket)
    if (connection === undefined) return
    connection.bodies--
    connection.reserved -= bytes
    this.#charge(connection)
  }

  /** Follows a body that is sent on a connection, and the peer's connection that it comes on. */
  follow(socket: Socket, progress: Progress, source: BodyConnection.RelaySource | undefined): void {
    Object.assign(this.of(socket), { progress, moved: 0, relaying: source })
  }

  unfollow(socket: Socket): void {
    const connection = this.#connections.get(socket)
    if (connection === undefined) return
    Object.assign(connection, { progress: undefined, relaying: undefined, received: 0 })
    this.#charge(connection)
  }

  /** Replaces the estimates by what the kernel measured. */
  correct(measured: ReadonlyArray<SocketQueue>, relays: ReadonlyMap<number | undefined, Connection>): void {
    const queued = new Map<Connection, number>()
    this.#gone = new Map()
    this.#goneOfAll = 0
    for (const relay of relays.values()) relay.received = 0
    for (const { address, localPort, port, unread, unsent } of measured) {
      const connection = this.#byKey.get(keyOf(localPort, address, port))
      const relay = relays.get(localPort)
      if (connection !== undefined) queued.set(connection, unsent + unread)
      else if (relay !== undefined) relay.received = unread
      else this.#addGone(address, unsent)
    }
    for (const connection of this.#connections.values()) this.#correctOne(connection, queued.get(connection) ?? 0)
  }

  /**
   * The connection with a body whose client has taken nothing for this long: of the client address that uses most, the one
   * that has waited longest.
   */
  stalledFor(millis: number): Connection | undefined {
    for (const socket of this.#connections.keys()) this.of(socket)
    const before = performance.now() - millis
    const useOf = ({ client }: Connection) => client.moving + client.beyond
    const [stalled] = [...this.#connections.values()]
      .filter(({ bodies, movedAt }) => bodies > 0 && movedAt < before)
      .toSorted((one, other) => useOf(other) - useOf(one) || one.movedAt - other.movedAt)
    return stalled
  }

  #enter(socket: Socket): Connection {
    const address = ClientAddress.of(socket)
    const client = this.#clients.get(address) ?? { address, connections: 0, moving: 0, beyond: 0 }
    client.connections++
    this.#clients.set(address, client)
    const connection = BodyConnection.make(socket, client)
    const { localPort = 0, remotePort } = socket
    const key = keyOf(localPort, address, remotePort)
    this.#connections.set(socket, connection)
    this.#byKey.set(key, connection)
    this.#ports.add(localPort)
    const leave = () => this.#leave(connection, key)
    if (socket.destroyed) queueMicrotask(leave)
    else socket.once("close", leave)
    return connection
  }

  #leave(connection: Connection, key: string): void {
    const { client, queued, socket } = connection
    this.#connections.delete(socket)
    if (this.#byKey.get(key) === connection) this.#byKey.delete(key)
    // The last bytes that it was sent may still be on their way.
    this.#addGone(client.address, queued)
    Object.assign(connection, { bodies: 0, reserved: 0, received: 0, queued: 0 })
    this.#charge(connection)
    if (--client.connections === 0) this.#clients.delete(client.address)
    this.#options.onLeave(connection)
  }

  #addGone(address: string, bytes: number): void {
    this.#gone.set(address, (this.#gone.get(address) ?? 0) + bytes)
    this.#goneOfAll += bytes
  }

  #correctOne(connection: Connection, queued: number): void {
    this.of(connection.socket)
    const now = Math.min(queued, this.#options.maxUnsent)
    const taken = connection.last.queued + connection.written - connection.last.written - now
    connection.takes = taken > 0 && taken >= now
    connection.allowance = connection.takes ? Math.min(Math.max(2 * taken, pieceSize), maxAllowance) : pieceSize
    if (taken > 0) connection.movedAt = performance.now()
    connection.last.queued = connection.queued = now
    connection.last.written = connection.written
    this.#charge(connection)
  }

  #beyondOnceSent({ bodies, queued, received, reserved }: Connection, more = 0): number {
    const inKernel = received + Math.min(queued + more, this.#options.maxUnsent)
    return Math.max(0, inKernel - (reserved - bodies * pieceSize))
  }

  /** Brings the sums up to date with a connection. */
  #charge(connection: Connection): void {
    const { client, reserved: moving, use } = connection
    const beyond = this.#beyondOnceSent(connection)
    for (const sum of [client, this.#all]) {
      sum.moving += moving - use.moving
      sum.beyond += beyond - use.beyond
    }
    use.moving = moving
    use.beyond = beyond
    this.#options.onCharge(connection)
  }
}
