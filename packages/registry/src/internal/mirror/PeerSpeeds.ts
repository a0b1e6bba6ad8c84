/**
 * What peers gave lately, in bytes per second: the measure of one that is slow. It counts what reached the client, whatever
 * held it up, so that a peer is compared with no more than others really gave.
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import type { Peer } from "@spegel-ts/router/Peer"

/** Fewer bytes tell of buffers on the way, and not of the peer; unless they took long. */
export const minSampleBytes = 1024 * 1024
const minMillis = 1000
const keepMillis = 10 * 60_000
const maxPeers = 1000
/** Networks differ from moment to moment; one that gives so many times less is worth leaving. */
const factor = 10

export class PeerSpeeds {
  /** The last of each peer; what came last is at the end. */
  readonly #last = new BoundedMap<string, { readonly bytesPerSecond: number; readonly at: number }>(maxPeers)

  /** A peer gave `bytes` in a row. */
  gave({ id }: Peer, bytes: number, millis: number, now: number): void {
    if (bytes < minSampleBytes && millis < minMillis) return
    this.#last.set(id, { bytesPerSecond: (bytes / Math.max(1, millis)) * 1000, at: now })
  }

  /** Whether it is known what any other peer gives. */
  knowsOthers(peer: Peer, now: number): boolean {
    return this.#others(peer, now).length > 0
  }

  /** The median of what others give, in bytes a second, or undefined where this peer gives more than a tenth of that. */
  typicalOfOthers(peer: Peer, bytesPerSecond: number, now: number): number | undefined {
    const others = this.#others(peer, now).toSorted((one, other) => one - other)
    const typical = others[Math.floor((others.length - 1) / 2)]
    return typical !== undefined && bytesPerSecond * factor <= typical ? Math.round(typical) : undefined
  }

  #others({ id }: Peer, now: number): ReadonlyArray<number> {
    return [...this.#last].flatMap(([other, { at, bytesPerSecond }]) =>
      other === id || now - at > keepMillis ? [] : [bytesPerSecond]
    )
  }
}
