/**
 * The memory of all bodies on their way to clients: what they are read into here, and what the kernel holds of them in
 * sockets and pipes. All together have a budget. A part of it is for what each body needs to move, the rest for what makes
 * it fast. Of the first a client address may have twice as much as it leaves free to others, of the second as much. So
 * there is memory for each new client.
 *
 * What moves within the kernel has a bound there, all of which is reserved. Of what goes through this process the kernel
 * holds more, and that is not known at once. Bytes count when they are handed over, up to what a socket can hold; where
 * that comes near the bound, the kernel is asked, and what clients have taken since is counted off. A body that has reached
 * its bound waits for that, and goes on; a client that takes what it is sent is never stopped for good.
 */
import { pieceSize } from "@spegel-ts/transfer/ClientSink"
import type { Progress } from "@spegel-ts/transfer/Progress"
import { Effect, Metric, type Scope } from "effect"
import type { Socket } from "node:net"
import { type Client, type Connection, connectionOf, type RelaySource, type Use } from "./BodyConnection.ts"
import { type BodyKind, type Reserve, reserveOf } from "./BodyReserve.ts"
import * as ClientAddress from "./ClientAddress.ts"
import type { SocketQueue } from "./SocketQueues.ts"

export interface BodyMemoryOptions {
  /** In bytes. */
  readonly budget: number
  /** As bodies go now; through this process where not given. */
  readonly reserve?: () => Reserve
  /** Most that the kernel holds of one connection, in bytes. */
  readonly maxUnsent: number
  /** What the kernel holds of connections on these local ports; undefined where it does not tell. */
  readonly queues: (isWanted: (localPort: number) => boolean) => ReadonlyArray<SocketQueue> | undefined
}

/** How long a body waits for memory before it is refused. */
const patienceMillis = 1000
/** The kernel is asked again after this, or after so many times what its last answer cost. */
const minPauseMillis = 5
const pauseShare = 3
/** A client that has taken nothing for so long makes room for one that finds none. A disk under load keeps containerd waiting. */
const stalledMillis = 30_000
/** Where even more is in use than all may have, since bodies go on to come from peers, this is enough. */
const stalledAboveMillis = 2000
/** Shares of the rest of the budget above which the kernel is asked at once, and now and then. */
const nearBound = 0.96
const busy = 0.25
const watchMillis = 1000

const inUse = Metric.gauge("spegel_body_memory_bytes", {
  description: "Memory of bodies on their way to clients, buffers of sockets included, as it is known"
})
const refused = Metric.counter("spegel_bodies_refused_total", {
  description: "Bodies that were not sent since their memory is bounded",
  incremental: true
})

/** Makes the series that tell of bodies, before there are any. */
export const initialiseMetrics: Effect.Effect<void> = Effect.andThen(Metric.update(inUse, 0), Metric.update(refused, 0))

interface Waiter {
  readonly connection: Connection
  /** Goes on if there is room now. */
  readonly attempt: () => boolean
}

const keyOf = (localPort: number | undefined, address: string, port: number | undefined) =>
  `${localPort} ${address} ${port}`

export class BodyMemory {
  readonly #options: BodyMemoryOptions
  /** As it was when a body was last admitted. */
  #reserve: Reserve
  readonly #connections = new Map<Socket, Connection>()
  readonly #byKey = new Map<string, Connection>()
  readonly #clients = new Map<string, Client>()
  /** Local ports of all connections so far: those of few listeners. */
  readonly #ports = new Set<number>()
  readonly #all: Use = { moving: 0, beyond: 0 }
  /** What the kernel still holds of connections that are gone here, by address. */
  #gone = new Map<string, number>()
  /** That of all of them. */
  #apart = 0
  readonly #waiters = new Set<Waiter>()
  #timer: NodeJS.Timeout | undefined
  /** When the timer is due. */
  #dueAt = Infinity
  #measuredAt = performance.now()
  #pauseMillis = minPauseMillis
  #closed = false

  constructor(options: BodyMemoryOptions) {
    this.#options = options
    this.#reserve = this.#reserveNow()
  }

  /** Bytes in use, as far as it is known. */
  get used(): number {
    return this.#all.moving + this.#all.beyond + this.#apart
  }

  /** Whether so many bytes may be sent to a client now. */
  hasRoom(socket: Socket, bytes: number): boolean {
    const connection = this.#account(socket)
    // A client that has taken everything is sent a few bytes more, whatever others hold.
    if (connection.queued === 0 && bytes <= pieceSize) return true
    const more = this.#beyond(connection, bytes) - connection.use.beyond
    const wanted = connection.client.beyond + this.#goneOf(connection) + more
    const free = this.#budgetOf("beyond") - this.#all.beyond - this.#apart
    // A client that takes what it is sent must not suffer from what others of its address leave untaken.
    return more <= 0 || wanted <= (connection.takes ? 2 : 1) * free
  }

  /** Calls `resume` once so many bytes may be sent, or their client has gone. */
  whenRoom(socket: Socket, bytes: number, resume: () => void): void {
    this.#wait(this.#account(socket), () => {
      if (!socket.destroyed && !this.hasRoom(socket, bytes)) return false
      resume()
      return true
    })
  }

  /** Memory for one body to a client as long as the scope is open; false where there is none, even after a while. */
  readonly admit = (socket: Socket, kind: BodyKind = "file"): Effect.Effect<boolean, never, Scope.Scope> => {
    this.#reserve = this.#reserveNow()
    const bytes = this.#reserve[kind]
    return Effect.acquireRelease(
      Effect.callback<boolean>((resume) => {
        const connection = this.#account(socket)
        let timer: NodeJS.Timeout | undefined
        const take = () => {
          if (!socket.destroyed && !this.#mayMove(connection, bytes)) return false
          if (!socket.destroyed) this.#hold(connection, 1, bytes)
          clearTimeout(timer)
          resume(Effect.succeed(!socket.destroyed))
          return true
        }
        if (take()) return
        const waiter = this.#wait(connection, take)
        timer = setTimeout(() => {
          this.#waiters.delete(waiter)
          this.#closeStalled(stalledMillis)
          resume(Effect.succeed(false))
        }, patienceMillis)
      }).pipe(Effect.tap((admitted) => admitted ? Effect.void : Metric.update(refused, 1))),
      (admitted) => admitted ? this.#letGo(socket, bytes) : Effect.void
    ).pipe(Effect.tap(() => Metric.update(inUse, this.used)))
  }

  /** Follows the body that is sent to a client as long as the scope is open, and what comes of it from a peer. */
  readonly sending = (
    socket: Socket,
    progress: Progress,
    source?: RelaySource
  ): Effect.Effect<void, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => {
        Object.assign(this.#account(socket), { progress, moved: 0, relaying: source })
      }),
      () =>
        Effect.sync(() => {
          const connection = this.#connections.get(socket)
          if (connection === undefined) return
          Object.assign(connection, { progress: undefined, relaying: undefined, received: 0 })
          this.#recharge(connection)
        })
    )

  /** Stops asking the kernel; for when nothing is sent any more. */
  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
  }

  #reserveNow(): Reserve {
    return this.#options.reserve?.() ?? reserveOf("portable")
  }

  #budgetOf(part: keyof Use): number {
    const { share } = this.#reserve
    return (part === "moving" ? share : 1 - share) * this.#options.budget
  }

  #goneOf({ client }: Connection): number {
    return this.#gone.get(client.address) ?? 0
  }

  /** Whether one body more may move. */
  #mayMove({ client }: Connection, bytes: number): boolean {
    return client.moving + bytes <= 2 * (this.#budgetOf("moving") - this.#all.moving)
  }

  /** What a connection uses beyond what its bodies need to move, once it was sent some bytes more. */
  #beyond({ bodies, queued, received, reserved }: Connection, more = 0): number {
    const inKernel = received + Math.min(queued + more, this.#options.maxUnsent)
    return Math.max(0, inKernel - (reserved - bodies * pieceSize))
  }

  /** Counts what was sent since the last time. */
  #account(socket: Socket): Connection {
    const connection = this.#connections.get(socket) ?? this.#enter(socket)
    const { moved = 0 } = connection.progress ?? {}
    if (moved !== connection.moved) connection.movedAt = performance.now()
    connection.moved = moved
    const sent = socket.bytesWritten - connection.written
    if (sent > 0) {
      connection.written += sent
      connection.queued = Math.min(connection.queued + sent, this.#options.maxUnsent)
      connection.movedAt = performance.now()
      this.#recharge(connection)
    }
    return connection
  }

  #recharge(connection: Connection): void {
    const { client, use } = connection
    const moving = connection.reserved
    const beyond = this.#beyond(connection)
    for (const sum of [client, this.#all]) {
      sum.moving += moving - use.moving
      sum.beyond += beyond - use.beyond
    }
    use.moving = moving
    use.beyond = beyond
    const all = this.#all.beyond + this.#apart
    if (all > busy * this.#budgetOf("beyond")) {
      const own = client.beyond + this.#goneOf(connection)
      this.#measureIn(own + all > nearBound * this.#budgetOf("beyond") ? this.#pauseMillis : watchMillis)
    }
  }

  /** A body begins (1) or ends (-1), for which so many bytes are reserved. */
  #hold(connection: Connection, bodies: 1 | -1, bytes: number): void {
    connection.bodies += bodies
    connection.reserved += bodies * bytes
    this.#recharge(connection)
  }

  #letGo(socket: Socket, bytes: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      const connection = this.#connections.get(socket)
      if (connection !== undefined) this.#hold(connection, -1, bytes)
      return Metric.update(inUse, this.used)
    })
  }

  #enter(socket: Socket): Connection {
    const address = ClientAddress.of(socket)
    const client = this.#clients.get(address) ?? { address, connections: 0, moving: 0, beyond: 0 }
    client.connections++
    this.#clients.set(address, client)
    const connection = connectionOf(socket, client)
    const { localPort = 0, remotePort } = socket
    const key = keyOf(localPort, address, remotePort)
    this.#connections.set(socket, connection)
    this.#byKey.set(key, connection)
    this.#ports.add(localPort)
    const leave = () => {
      this.#connections.delete(socket)
      if (this.#byKey.get(key) === connection) this.#byKey.delete(key)
      // What it was sent last is on its way still.
      this.#gone.set(address, this.#goneOf(connection) + connection.queued)
      this.#apart += connection.queued
      Object.assign(connection, { bodies: 0, reserved: 0, received: 0, queued: 0 })
      this.#recharge(connection)
      if (--client.connections === 0) this.#clients.delete(address)
      for (const waiter of this.#waiters) {
        if (waiter.connection === connection && waiter.attempt()) this.#waiters.delete(waiter)
      }
    }
    if (socket.destroyed) queueMicrotask(leave)
    else socket.once("close", leave)
    return connection
  }

  /** Tries again whenever the kernel has been asked. */
  #wait(connection: Connection, attempt: () => boolean): Waiter {
    const waiter = { connection, attempt }
    this.#waiters.add(waiter)
    this.#measureIn(this.#pauseMillis)
    return waiter
  }

  /** Asks the kernel so many milliseconds after it was asked last, or sooner where that is due already. */
  #measureIn(millis: number): void {
    const dueAt = this.#measuredAt + millis
    if (this.#closed || dueAt >= this.#dueAt) return
    clearTimeout(this.#timer)
    this.#dueAt = dueAt
    this.#timer = setTimeout(() => this.#measure(), dueAt - performance.now()).unref()
  }

  #measure(): void {
    const relays = new Map(
      [...this.#connections.values()].map((connection) => [connection.relaying?.receivingPort, connection])
    )
    const begun = performance.now()
    const found = this.#options.queues((port) => this.#ports.has(port) || relays.has(port)) ?? []
    this.#measuredAt = performance.now()
    this.#pauseMillis = Math.max(minPauseMillis, pauseShare * (this.#measuredAt - begun))
    this.#dueAt = Infinity
    this.#take(found, relays)
    if (this.#all.beyond + this.#apart > this.#budgetOf("beyond")) this.#closeStalled(stalledAboveMillis)
    for (const waiter of this.#waiters) if (waiter.attempt()) this.#waiters.delete(waiter)
    if (this.#waiters.size > 0) this.#measureIn(this.#pauseMillis)
    else if (this.#all.beyond + this.#apart > busy * this.#budgetOf("beyond")) this.#measureIn(watchMillis)
  }

  /** Believes the kernel. */
  #take(found: ReadonlyArray<SocketQueue>, relays: ReadonlyMap<number | undefined, Connection>): void {
    const queued = new Map<Connection, number>()
    this.#gone = new Map()
    this.#apart = 0
    for (const relay of relays.values()) relay.received = 0
    for (const { address, localPort, port, unread, unsent } of found) {
      const connection = this.#byKey.get(keyOf(localPort, address, port))
      const relay = relays.get(localPort)
      if (connection !== undefined) queued.set(connection, unsent + unread)
      else if (relay !== undefined) relay.received = unread
      else {
        this.#gone.set(address, (this.#gone.get(address) ?? 0) + unsent)
        this.#apart += unsent
      }
    }
    for (const connection of this.#connections.values()) {
      this.#account(connection.socket)
      const now = Math.min(queued.get(connection) ?? 0, this.#options.maxUnsent)
      const taken = connection.last.queued + connection.written - connection.last.written - now
      connection.takes = taken > 0 && taken >= now
      if (taken > 0) connection.movedAt = performance.now()
      connection.last.queued = connection.queued = now
      connection.last.written = connection.written
      this.#recharge(connection)
    }
  }

  /** Closes the body whose client has taken nothing for longest, and for so long, of the client that uses most. */
  #closeStalled(millis: number): void {
    for (const socket of this.#connections.keys()) this.#account(socket)
    const before = performance.now() - millis
    const useOf = ({ client }: Connection) => client.moving + client.beyond
    const [stalled] = [...this.#connections.values()]
      .filter(({ bodies, movedAt }) => bodies > 0 && movedAt < before)
      .toSorted((one, other) => useOf(other) - useOf(one) || one.movedAt - other.movedAt)
    stalled?.socket.destroy()
  }
}
