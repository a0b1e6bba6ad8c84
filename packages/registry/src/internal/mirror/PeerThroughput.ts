/**
 * The throughput of each peer, as observed in its last body: the measure for a slow one. It counts bytes that reached the client,
 * whatever held them up, so that no peer is compared with more than others really gave. All peers of one address are one, so that a
 * machine that claims to be many does not set the measure for the others.
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import type { Peer } from "@spegel-ts/router/Peer"
import * as PeerAddress from "./PeerAddress.ts"

/** Fewer bytes measure buffers on the way and not the peer, unless they took long. */
export const minSampleBytes = 1024 * 1024
const minMillis = 1000
const keepMillis = 10 * 60_000
const maxAddresses = 1000
/** Networks differ from moment to moment. A peer is left if others send this many times more. */
const factor = 10

export class PeerThroughput {
  /** The last observation of each address. */
  readonly #last = new BoundedMap<string, { readonly bytesPerSecond: number; readonly at: number }>(maxAddresses)

  /** A peer gave `bytes` in a row, within this many milliseconds. */
  observe(peer: Peer, bytes: number, millis: number, now: number): void {
    if (bytes < minSampleBytes && millis < minMillis) return
    this.#last.set(PeerAddress.of(peer), { bytesPerSecond: (bytes / Math.max(1, millis)) * 1000, at: now })
  }

  /** Whether the throughput of any other peer is known. */
  knowsOthers(peer: Peer, now: number): boolean {
    return this.#others(peer, now).length > 0
  }

  /** The median speed of others, in bytes per second; undefined if this peer sends more than a tenth of that. */
  typicalOfOthers(peer: Peer, bytesPerSecond: number, now: number): number | undefined {
    const others = this.#others(peer, now).toSorted((one, other) => one - other)
    const typical = others[Math.floor((others.length - 1) / 2)]
    return typical !== undefined && bytesPerSecond * factor <= typical ? Math.round(typical) : undefined
  }

  #others(peer: Peer, now: number): ReadonlyArray<number> {
    const address = PeerAddress.of(peer)
    return [...this.#last].flatMap(([other, { at, bytesPerSecond }]) =>
      other === address || now - at > keepMillis ? [] : [bytesPerSecond]
    )
  }
}
