/**
 * Bounds the connections of each client address and of all. A connection beyond a bound takes the place of an idle one: the
 * one that has been idle for longest, of the address that has most. If none is idle it is accepted as surplus, for one
 * answer: a probe has to be heard.
 */
import type { ServerResponse } from "node:http"
import type { Socket } from "node:net"
import * as ClientAddress from "./ClientAddress.ts"

export interface PlaceLimits {
  /** Connections of all clients. */
  readonly all: number
  /** Connections of one client address. */
  readonly ofAddress: number
}

/** Surplus connections, each for one answer. The oldest makes room for the next. */
const maxSurplus = 64

/**
 * Pipelined requests that wait for the answer before them, on one connection and on all: each takes some KiB, and the
 * 64 KiB that are read at once hold thousands. Clients of registries send one at a time.
 */
const maxWaiting = 128
const maxWaitingOfAll = 1024

export interface Place {
  readonly socket: Socket
  readonly address: string
  /** Beyond the limits: only probes are answered. */
  readonly surplus: boolean
  /** The response to the last request so far. */
  response: ServerResponse | undefined
  /** Requests that arrived before the answer to the one before them was out. */
  waiting: number
}

/** Whether a connection is idle: no answer is being sent on it. */
export const isIdle = ({ response }: Place): boolean =>
  response === undefined || response.writableFinished || response.destroyed

export class ConnectionPlaces {
  readonly #limits: PlaceLimits
  readonly #places = new Map<Socket, Place>()
  /** By address; the one whose last request is longest ago comes first. */
  readonly #ofAddress = new Map<string, Set<Place>>()
  readonly #surplus = new Set<Place>()
  #waiting = 0

  constructor(limits: PlaceLimits) {
    this.#limits = limits
  }

  /** Connections that have a place. */
  get size(): number {
    return this.#places.size - this.#surplus.size
  }

  get(socket: Socket): Place | undefined {
    return this.#places.get(socket)
  }

  /** A client has connected. */
  enter(socket: Socket): void {
    const address = ClientAddress.of(socket)
    const place: Place = { socket, address, surplus: !this.#makeRoom(address), response: undefined, waiting: 0 }
    this.#places.set(socket, place)
    socket.once("close", () => this.#leave(place))
    if (!place.surplus) {
      this.#ofAddress.set(address, (this.#ofAddress.get(address) ?? new Set()).add(place))
      return
    }
    const [oldest] = this.#surplus
    if (oldest !== undefined && this.#surplus.size >= maxSurplus) this.#close(oldest)
    this.#surplus.add(place)
  }

  /** A request has come on a connection. */
  asked(place: Place, response: ServerResponse): void {
    place.response = response
    const places = this.#ofAddress.get(place.address)
    if (places?.delete(place) === true) places.add(place)
  }

  /** A request waits for the answer before it. False if too many do. */
  wait(place: Place): boolean {
    if (place.waiting >= maxWaiting || this.#waiting >= maxWaitingOfAll) return false
    place.waiting++
    this.#waiting++
    return true
  }

  /** A request that waited is being answered. */
  goOn(place: Place): void {
    place.waiting--
    this.#waiting--
  }

  /** Whether there is a place for one more connection of an address, if necessary that of an idle one. */
  #makeRoom(address: string): boolean {
    const own = this.#ofAddress.get(address)
    if (own !== undefined && own.size >= this.#limits.ofAddress) return this.#closeOneOf(own)
    if (this.size < this.#limits.all) return true
    const byCount = [...this.#ofAddress.values()].toSorted((one, other) => other.size - one.size)
    return byCount.some((places) => this.#closeOneOf(places))
  }

  #closeOneOf(places: Iterable<Place>): boolean {
    for (const place of places) {
      if (!isIdle(place)) continue
      this.#close(place)
      return true
    }
    return false
  }

  #close(place: Place): void {
    this.#leave(place)
    place.socket.destroy()
  }

  #leave(place: Place): void {
    if (!this.#places.delete(place.socket)) return
    this.#waiting -= place.waiting
    place.waiting = 0
    this.#surplus.delete(place)
    const places = this.#ofAddress.get(place.address)
    places?.delete(place)
    if (places?.size === 0) this.#ofAddress.delete(place.address)
  }
}
