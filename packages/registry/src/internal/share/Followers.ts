/**
 * The nodes that get this node's downloads as they grow. Each download is sent to a few: its other followers take it from those, so that
 * many nodes get it at the speed of one link. A node that waits for the first bytes has its place already.
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import type * as Digest from "@spegel-ts/oci/Digest"
import { Effect, type Scope } from "effect"
import type { Asked } from "./DownloadState.ts"

/** With one, a slow node would slow down all behind it; with three, a link is shared by more than it has to be. */
const most = 2
/** containerd has a handful of downloads. */
const maxDigests = 256

interface Place {
  /** How many bodies are being sent to it. */
  streams: number
  /** Until when its place is kept without any. */
  until: number
}

/** Times are as `MonotonicTime.millis` has them. */
export class Followers {
  readonly #places = new BoundedMap<Digest.Digest, Map<string, Place>>(maxDigests)

  /** Whether `asked` may have the download from here. */
  hasPlace(digest: Digest.Digest, { asker }: Asked, now: number): boolean {
    const places = this.#of(digest, now)
    return places.has(asker) || places.size < most
  }

  /**
   * Whom `asked` should ask instead; nobody if it may have the download from here. The one that was named longest ago comes first: so
   * those that are sent on spread evenly.
   */
  instead(digest: Digest.Digest, asked: Asked, now: number): ReadonlyArray<string> {
    if (this.hasPlace(digest, asked, now)) return []
    const places = this.#of(digest, now)
    const ids = [...places.keys()]
    const [first] = places
    if (first !== undefined) {
      places.delete(first[0])
      places.set(...first)
    }
    return ids
  }

  /** Keeps a place until then for a node that waits. */
  expect(digest: Digest.Digest, { asker }: Asked, until: number): void {
    this.#place(digest, asker).until = until
  }

  /** The nodes that a download is being sent to. */
  of(digest: Digest.Digest): ReadonlyArray<string> {
    return [...this.#places.get(digest) ?? []].filter(([, { streams }]) => streams > 0).map(([id]) => id)
  }

  /** Counts a follower while the scope is open. */
  admit(digest: Digest.Digest, { asker }: Asked): Effect.Effect<void, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => void this.#place(digest, asker).streams++),
      () => Effect.sync(() => this.#leave(digest, asker))
    )
  }

  #leave(digest: Digest.Digest, id: string): void {
    const places = this.#places.get(digest)
    const place = places?.get(id)
    if (places === undefined || place === undefined || --place.streams > 0) return
    places.delete(id)
    if (places.size === 0) this.#places.delete(digest)
  }

  #place(digest: Digest.Digest, id: string): Place {
    const places = this.#places.get(digest) ?? new Map<string, Place>()
    if (places.size === 0) this.#places.set(digest, places)
    const place = places.get(id) ?? { streams: 0, until: -Infinity }
    places.set(id, place)
    return place
  }

  /** Without those whose time is over. */
  #of(digest: Digest.Digest, now: number): Map<string, Place> {
    const places = this.#places.get(digest) ?? new Map<string, Place>()
    for (const [id, { streams, until }] of places) if (streams === 0 && until <= now) places.delete(id)
    return places
  }
}
