/**
 * Bounds the memory of all bodies on their way to clients: buffers of this process, and what the kernel holds of them in
 * sockets and pipes.
 *
 * All bodies share one budget. One share of it is for reservations: each body gets what it needs to move (`BodyReserve`).
 * The rest lets bodies be fast. Neither can be used up by one client address: of the reservations it may have at most twice
 * as much as it leaves free to others, of the rest as much as it leaves free. So there is always memory for a new client.
 *
 * A body that moves within the kernel has all of its bound reserved. The kernel may hold more of a body that goes through
 * this process; that is counted as it is sent, and corrected by measurements (`MemoryAccounts`). A body that reaches its
 * bound waits, and continues when a measurement shows that clients have taken bytes. A client that keeps reading is never
 * stopped for good.
 */
import type { Progress } from "@spegel-ts/transfer/Progress"
import { Effect, type Scope } from "effect"
import type { Socket } from "node:net"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import type { BodyConnection, RelaySource } from "./BodyConnection.ts"
import type { BodyKind, Reserve } from "./BodyReserve.ts"
import { MeasureTimer } from "./MeasureTimer.ts"
import { MemoryAccounts } from "./MemoryAccounts.ts"
import type { SocketQueue } from "./SocketQueues.ts"

export interface BodyMemoryOptions {
  /** In bytes. */
  readonly budget: number
  /** The reservations for the way that bodies move now. */
  readonly reserve: () => Reserve
  /** The most that the kernel holds unsent of one connection, in bytes. */
  readonly maxUnsent: number
  /** Asks the kernel for the queues of connections on these local ports. Undefined if the kernel does not list them. */
  readonly queues: (isWanted: (localPort: number) => boolean) => ReadonlyArray<SocketQueue> | undefined
}

/** How long a body waits for memory before it is refused, in milliseconds. */
const patienceMillis = 1000
/** A client that took nothing for this long makes room for one that finds none. A busy disk may keep containerd waiting. */
const stalledMillis = 30_000
/** The same while more is in use than all bodies may have, which happens while bodies keep coming from peers. */
const stalledAboveMillis = 2000
/** Above this share of the unreserved budget the kernel is asked as soon as possible. */
const nearBound = 0.96
/** Above this share the kernel is asked every `watchMillis`. */
const busy = 0.25
const watchMillis = 1000

interface Waiter {
  readonly connection: BodyConnection
  /** Continues if there is room now; returns whether it did. */
  readonly attempt: () => boolean
}

export class BodyMemory {
  readonly #options: BodyMemoryOptions
  /** As it was when a body was last admitted. */
  #reserve: Reserve
  readonly #waiters = new Set<Waiter>()
  readonly #accounts: MemoryAccounts
  readonly #timer = new MeasureTimer({
    measure: () => {
      const relays = this.#accounts.relays
      const isWanted = (port: number) => this.#accounts.isOfListener(port) || relays.has(port)
      return { relays, queues: this.#options.queues(isWanted) ?? [] }
    },
    use: ({ queues, relays }) => {
      this.#accounts.correct(queues, relays)
      this.#goOn()
    }
  })

  constructor(options: BodyMemoryOptions) {
    this.#options = options
    this.#reserve = options.reserve()
    this.#accounts = new MemoryAccounts({
      maxUnsent: options.maxUnsent,
      onCharge: (connection) => this.#onCharge(connection),
      onLeave: (connection) => this.#retry((waiter) => waiter.connection === connection)
    })
  }

  /** Bytes in use, as far as they are known. */
  get used(): number {
    return this.#accounts.moving + this.#accounts.beyond
  }

  /** Whether this many bytes may be sent to a client now. */
  hasRoom(socket: Socket, bytes: number): boolean {
    const connection = this.#accounts.of(socket)
    // A client that has taken everything may get some bytes more, whatever others hold.
    if (connection.queued + bytes <= connection.allowance) return true
    const growth = this.#accounts.growth(connection, bytes)
    const free = this.#budget.beyond - this.#accounts.beyond
    // A client that keeps reading must not suffer from what others at its address leave unread.
    return growth <= 0 || this.#accounts.beyondOf(connection) + growth <= (connection.takes ? 2 : 1) * free
  }

  /** Calls `resume` once this many bytes may be sent, or their client has gone. */
  whenRoom(socket: Socket, bytes: number, resume: () => void): void {
    this.#wait(this.#accounts.of(socket), () => {
      if (!socket.destroyed && !this.hasRoom(socket, bytes)) return false
      resume()
      return true
    })
  }

  /** Reserves memory for a body while the scope is open. False if there is none within a second. */
  readonly admit = (socket: Socket, kind: BodyKind): Effect.Effect<boolean, never, Scope.Scope> => {
    this.#reserve = this.#options.reserve()
    const bytes = this.#reserve[kind]
    return Effect.acquireRelease(
      Effect.tap(
        this.#reserved(socket, bytes),
        (admitted) => admitted ? Effect.void : RegistryMetrics.bodyRefused
      ),
      (admitted) => admitted ? this.#release(socket, bytes) : Effect.void
    ).pipe(Effect.tap(() => RegistryMetrics.bodyMemoryUsed(this.used)))
  }

  /** Follows the body that is sent to a client while the scope is open, and the connection that it comes on from a peer. */
  readonly sending = (
    socket: Socket,
    progress: Progress,
    source?: RelaySource
  ): Effect.Effect<void, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => this.#accounts.follow(socket, progress, source)),
      () => Effect.sync(() => this.#accounts.unfollow(socket))
    )

  /** Stops asking the kernel. Call it when nothing is sent any more. */
  close(): void {
    this.#timer.close()
  }

  #reserved(socket: Socket, bytes: number): Effect.Effect<boolean> {
    return Effect.callback<boolean>((resume) => {
      const connection = this.#accounts.of(socket)
      let timer: NodeJS.Timeout | undefined
      const take = () => {
        if (!socket.destroyed && !this.#mayReserve(connection, bytes)) return false
        if (!socket.destroyed) this.#accounts.reserve(connection, bytes)
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
    })
  }

  #release(socket: Socket, bytes: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#accounts.release(socket, bytes)
      return RegistryMetrics.bodyMemoryUsed(this.used)
    })
  }

  get #budget(): { readonly moving: number; readonly beyond: number } {
    const moving = this.#reserve.share * this.#options.budget
    return { moving, beyond: this.#options.budget - moving }
  }

  #mayReserve({ client }: BodyConnection, bytes: number): boolean {
    return client.moving + bytes <= 2 * (this.#budget.moving - this.#accounts.moving)
  }

  #onCharge(connection: BodyConnection): void {
    const { beyond } = this.#accounts
    if (beyond <= busy * this.#budget.beyond) return
    if (this.#accounts.beyondOf(connection) + beyond > nearBound * this.#budget.beyond) this.#timer.soon()
    else this.#timer.within(watchMillis)
  }

  /** Tries again after each measurement. */
  #wait(connection: BodyConnection, attempt: () => boolean): Waiter {
    const waiter = { connection, attempt }
    this.#waiters.add(waiter)
    this.#timer.soon()
    return waiter
  }

  #retry(isTried: (waiter: Waiter) => boolean): void {
    for (const waiter of this.#waiters) if (isTried(waiter) && waiter.attempt()) this.#waiters.delete(waiter)
  }

  /** After a measurement: requests that wait may have room now. */
  #goOn(): void {
    if (this.#accounts.beyond > this.#budget.beyond) this.#closeStalled(stalledAboveMillis)
    this.#retry(() => true)
    if (this.#waiters.size > 0) this.#timer.soon()
    else if (this.#accounts.beyond > busy * this.#budget.beyond) this.#timer.within(watchMillis)
  }

  #closeStalled(millis: number): void {
    this.#accounts.stalledFor(millis)?.socket.destroy()
  }
}
